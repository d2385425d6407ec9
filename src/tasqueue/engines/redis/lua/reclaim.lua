-- End incarnations: what they hold goes back to its old place, and their tokens are worth nothing from now on.
-- include: base clock must waking due lines record
--
-- ARGV    mode ("retire", "one", "expired"), worker, cause, ms without a reclaim after which no lease can be judged
-- result  {jobs given back, worker, ...}
-- cost    6 us for each job given back
local mode, cause = ARGV[1], ARGV[3]
local dead = {}
if mode ~= 'expired' then
    local deadline = call('ZSCORE', K .. 'workers', ARGV[2])
    if deadline then dead = {ARGV[2], deadline} end
else
    local last = call('GET', K .. 'reclaimed')
    call('SET', K .. 'reclaimed', now)
    if not last or now - last > tonumber(ARGV[4]) then
        for _, worker in ipairs(call('ZRANGE', K .. 'workers', 0, -1)) do
            call('ZADD', K .. 'workers', now + call('HGET', K .. 'w:' .. worker, 'l'), worker)
        end
        return {0}
    end
    dead = call('ZRANGEBYSCORE', K .. 'workers', '-inf', '(' .. now, 'WITHSCORES')
end

local reply = {0}
for i = 1, #dead, 2 do
    local worker = dead[i]
    local held = call('HGETALL', K .. 'run:' .. worker)
    local why = cause
    if why == '' then why = 'its lease ended ' .. (now - dead[i + 1]) .. ' ms ago' end
    for j = 1, #held, 2 do
        local rec = held[j] ~= '' and call('GET', R .. held[j])
        if rec then
            local p = parse(rec)
            p.worker, p.claim, p.claimed = '', 0, 0
            if mode ~= 'retire' then
                p.extra = write_extra((read_extra(p.extra)) + 1, worker, '', '', why)
            end
            call('SET', R .. held[j], build(p))
            to_line(p.queue, place_of(held[j + 1]), held[j])
            reply[1] = reply[1] + 1
        end
    end
    call('DEL', K .. 'w:' .. worker, K .. 'run:' .. worker, K .. 'note:' .. worker)
    call('ZREM', K .. 'workers', worker)
    reply[#reply + 1] = worker
end
flush()
return reply
