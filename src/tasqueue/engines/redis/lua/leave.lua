-- An engine goes: it sleeps on these queues no longer.
-- include: base must
--
-- ARGV    engine (hex), then the queues
-- result  1
-- cost    constant for each queue
for i = 2, #ARGV do call('ZREM', K .. 'idle:' .. ARGV[i], ARGV[1]) end
return 1
