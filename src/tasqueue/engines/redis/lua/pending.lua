-- Ids of a queue's ready jobs, in claim order.
-- include: base
--
-- ARGV    queue, limit, after or ""
-- result  {id, ...}
-- cost    O(log n + limit)
local key = K .. 'q:' .. ARGV[1]
local from = 0
local rank = ARGV[3] ~= '' and call('ZRANK', key, ARGV[3])
if rank then from = rank + 1 end
return call('ZRANGE', key, from, from + ARGV[2] - 1)
