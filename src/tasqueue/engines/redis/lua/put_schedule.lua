-- Store a schedule if the one under its id is still what was read.
-- include: base
--
-- ARGV    id, what was read or "", entry (next d, last d or -1, the rest), next tick or "" when it is paused
-- result  1, or 0 when somebody else has written it
-- cost    constant
if (call('HGET', K .. 'scheds', ARGV[1]) or '') ~= ARGV[2] then return 0 end
call('HSET', K .. 'scheds', ARGV[1], ARGV[3])
if ARGV[4] == '' then
    call('ZREM', K .. 'ticks', ARGV[1])
else
    call('ZADD', K .. 'ticks', ARGV[4], ARGV[1])
end
return 1
