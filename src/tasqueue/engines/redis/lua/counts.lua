-- How many jobs there are, by queue and state.
-- include: base clock
--
-- result  {4's, 5's, 6's, then for each queue: name, held, ready, due, running, parked}
-- cost    O(queues + running)
local running, queues, seen = {}, call('SMEMBERS', K .. 'queues'), {}
for _, queue in ipairs(queues) do seen[queue] = true end
for _, worker in ipairs(call('ZRANGE', K .. 'workers', 0, -1)) do
    for _, token in ipairs(call('HVALS', K .. 'run:' .. worker)) do
        local queue = string.match(token, '^%d+:%d+:[^:]+:(.*)$')
        if queue then running[queue] = (running[queue] or 0) + 1 end
        if queue and not seen[queue] then
            seen[queue] = true
            queues[#queues + 1] = queue
        end
    end
end
local total = {}
for state = 4, 6 do total[state] = tonumber(call('HGET', K .. 'n', state) or 0) end
for _, name in ipairs(call('ZRANGEBYSCORE', K .. 'exp', '-inf', now, 'LIMIT', 0, 10000)) do
    local state, num = string.match(name, '^(%d+):(%d+)$')
    local entry = call('XRANGE', K .. 'x:' .. state, num, num)[1]
    if entry then
        state = tonumber(state)
        total[state] = total[state] - entry[2][1] + (call('HGET', K .. 'gaps', name) or 0)
    end
end
local reply = {total[4], total[5], total[6]}
for _, queue in ipairs(queues) do
    local at = #reply
    reply[at + 1] = queue
    reply[at + 2] = tonumber(call('HGET', K .. 'held', queue) or 0)
    reply[at + 3] = call('ZCARD', K .. 'q:' .. queue)
    reply[at + 4] = call('ZCARD', K .. 'due:' .. queue)
    reply[at + 5] = running[queue] or 0
    reply[at + 6] = call('ZCARD', K .. 'pk:' .. queue)
end
return reply
