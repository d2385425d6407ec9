-- Ask a worker to drain; it is told with its next beat.
-- include: base must
--
-- ARGV    worker
-- result  1, or 0 when it is unknown
-- cost    constant
local key = K .. 'w:' .. ARGV[1]
if call('EXISTS', key) == 0 then return 0 end
call('HSET', key, 'd', 1)
return 1
