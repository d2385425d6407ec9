-- Note that a broker is about to sleep until there is something in these queues, unless there is.
-- include: base clock must
--
-- ARGV    broker (hex), then the queues
-- result  {1 if there is something, now, when the first is due or its lease ends, or false}
-- cost    constant for each queue
local earliest = false
for i = 2, #ARGV do
    local queue = ARGV[i]
    if call('EXISTS', K .. 'q:' .. queue) == 1 then return {1, now, false} end
    for _, key in ipairs({'due:', 'l:'}) do
        local date = tonumber(call('ZRANGE', K .. key .. queue, 0, 0, 'WITHSCORES')[2])
        if date and date <= now then return {1, now, false} end
        if date and (not earliest or date < earliest) then earliest = date end
    end
end
for i = 2, #ARGV do
    call('ZADD', K .. 'idle:' .. ARGV[i], now, ARGV[1])
    call('PEXPIRE', K .. 'idle:' .. ARGV[i], 15000)
end
return {0, now, earliest}
