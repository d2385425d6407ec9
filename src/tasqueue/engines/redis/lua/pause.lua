-- Pause a queue, or resume it.
-- include: base clock must waking
--
-- ARGV    queue, entry without its date ("": resume)
-- result  1
-- cost    constant
if ARGV[2] ~= '' then
    call('HSET', K .. 'paused', ARGV[1], spack('<d', now) .. ARGV[2])
elseif call('HDEL', K .. 'paused', ARGV[1]) == 1 then
    wake(ARGV[1], AWAKE)
end
return 1
