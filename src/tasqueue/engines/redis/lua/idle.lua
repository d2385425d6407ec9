-- Note that an engine is about to sleep until there is work in these queues, unless there is some.
-- include: base clock must
--
-- ARGV    engine (hex), then the queues
-- result  {1 if there is work, now, next due or false}
-- cost    constant for each queue
local earliest = false
for i = 2, #ARGV do
    local queue = ARGV[i]
    if call('HEXISTS', K .. 'paused', queue) == 0 then
        if call('EXISTS', K .. 'q:' .. queue) == 1 then return {1, now, false} end
        local date = tonumber(call('ZRANGE', K .. 'due:' .. queue, 0, 0, 'WITHSCORES')[2])
        if date and (not earliest or date < earliest) then earliest = date end
    end
end
for i = 2, #ARGV do
    call('ZADD', K .. 'idle:' .. ARGV[i], now, ARGV[1])
    call('PEXPIRE', K .. 'idle:' .. ARGV[i], 15000)
end
return {0, now, earliest}
