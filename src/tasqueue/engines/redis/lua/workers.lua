-- The registered workers.
-- include: base
--
-- result  {id, deadline, info, how many it holds, ...}
-- cost    O(workers)
local reply = {}
local found = call('ZRANGE', K .. 'workers', 0, -1, 'WITHSCORES')
for i = 1, #found, 2 do
    reply[#reply + 1] = found[i]
    reply[#reply + 1] = found[i + 1]
    reply[#reply + 1] = call('HGET', K .. 'w:' .. found[i], 'i') or ''
    reply[#reply + 1] = call('HLEN', K .. 'run:' .. found[i]) - 1
end
return reply
