-- Forget a schedule.
-- include: base
--
-- ARGV    id
-- result  1 if there was one
-- cost    constant
call('ZREM', K .. 'ticks', ARGV[1])
return call('HDEL', K .. 'scheds', ARGV[1])
