-- Forget what is left of jobs whose records have expired, links that have outlived their retention, and unused queues.
-- include: base clock must waking due lines record links
--
-- ARGV    most
-- result  jobs and links forgotten
-- cost    a few us for each entry of the index
local most, count = tonumber(ARGV[1]), 0
for _, name in ipairs(call('ZRANGEBYSCORE', K .. 'exp', '-inf', now, 'LIMIT', 0, most)) do
    local state, num = string.match(name, '^(%d+):(%d+)$')
    local key = K .. 'x:' .. state
    local entry = call('XRANGE', key, num, num)[1]
    if entry then
        local gaps = tonumber(call('HGET', K .. 'gaps', name) or 0)
        local n = tonumber(entry[2][1]) - gaps
        if count > 0 and count + n > most then break end
        count = count + n
        call('XDEL', key, entry[1])
        if call('XLEN', key) == 0 then call('DEL', key) end
        if gaps > 0 then call('HDEL', K .. 'gaps', name) end
        if call('HINCRBY', K .. 'n', state, -n) == 0 then call('HDEL', K .. 'n', state) end
    end
    call('ZREM', K .. 'exp', name)
end
if count < most then
    for _, link in ipairs(call('ZRANGEBYSCORE', K .. 'lx', '-inf', now, 'LIMIT', 0, most - count)) do
        forget_link(link)
        count = count + 1
    end
end
for _, queue in ipairs(call('SRANDMEMBER', K .. 'queues', 1000)) do
    local places = call('EXISTS', K .. 'q:' .. queue, K .. 'due:' .. queue, K .. 'pk:' .. queue)
    if places + call('HEXISTS', K .. 'held', queue) == 0 then
        call('SREM', K .. 'queues', queue)
    end
end
flush()
return count
