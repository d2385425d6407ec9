-- Forget messages, wherever they are.
-- include: base must broker
--
-- ARGV    queue, then spot and id of each
-- result  1
-- cost    one HDEL, two ZREM
local members, ids = {unpack(ARGV, 2)}, {}
for i, member in ipairs(members) do ids[i] = string.sub(member, SPOT + 1) end
call('HDEL', BODIES, unpack(ids))
call('ZREM', LEASED, unpack(members))
call('ZREM', READY, unpack(ids))
return 1
