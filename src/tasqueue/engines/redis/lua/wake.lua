-- Wake the next engine that found a queue empty, if it is not.
-- include: base waking
--
-- ARGV    queue
-- result  1
-- cost    constant
if call('EXISTS', K .. 'q:' .. ARGV[1]) == 1 then wake(ARGV[1], 1) end
return 1
