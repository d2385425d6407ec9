-- Hand out messages under a lease.
-- include: base clock must waking broker
--
-- ARGV    queue, limit, lease (ms)
-- result  {now, spot and id, body, spot and id, body, ...}
-- cost    one ZPOPMIN, one HMGET, one ZADD
bring_back()
local reply, left, over = {now}, tonumber(ARGV[2]), now + tonumber(ARGV[3])
while left > 0 do
    local popped = call('ZPOPMIN', READY, math.min(left, CHUNK / 2))
    if #popped == 0 then break end
    local ids, hold = {}, {}
    for i = 1, #popped, 2 do ids[#ids + 1] = popped[i] end
    for i, body in ipairs(call('HMGET', BODIES, unpack(ids))) do
        if body then -- else it was acknowledged meanwhile
            local member = spot_of(tonumber(popped[2 * i])) .. ids[i]
            hold[#hold + 1] = over
            hold[#hold + 1] = member
            reply[#reply + 1] = member
            reply[#reply + 1] = body
        end
    end
    if #hold > 0 then call('ZADD', LEASED, unpack(hold)) end
    left = left - #hold / 2
end
-- What is left is for the next sleeper.
if call('EXISTS', READY) == 1 then wake(Q, 1) end
return reply
