-- A page of the messages that could be consumed now, in that order.
-- include: base clock waking broker
--
-- ARGV    queue, limit, id that the page comes after ("" or unknown: from the head)
-- result  {id, score, body, ...}
-- cost    O(log n) and the page
local back = bring_back()
if back > 0 then wake(Q, back) end
local rank = call('ZRANK', READY, ARGV[3])
local start = rank and rank + 1 or 0
local reply = {}
local found = call('ZRANGE', READY, start, start + tonumber(ARGV[2]) - 1, 'WITHSCORES')
for i = 1, #found, 2 do
    local body = call('HGET', BODIES, found[i])
    if body then
        reply[#reply + 1] = found[i]
        reply[#reply + 1] = found[i + 1]
        reply[#reply + 1] = body
    end
end
return reply
