-- Fire ticks, each if its schedule still stands at what was expected: insert the job, move the schedule.
-- include: base clock waking due lines record links
--
-- ARGV    of each: schedule, expected, at, next, queue, priority, date or "", id, rest
-- result  {1 or 0 of each}
-- cost    6 us a tick
local reply = {}
for i = 1, #ARGV, 9 do
    local entry = call('HGET', K .. 'scheds', ARGV[i])
    if entry and sunpack('<d', entry) == tonumber(ARGV[i + 1]) then
        insert(ARGV[i + 4], tonumber(ARGV[i + 5]), tonumber(ARGV[i + 6]), false, '', ARGV[i + 7], ARGV[i + 8])
        call('HSET', K .. 'scheds', ARGV[i], spack('<dd', ARGV[i + 3], ARGV[i + 2]) .. string.sub(entry, 17))
        if call('ZSCORE', K .. 'ticks', ARGV[i]) then call('ZADD', K .. 'ticks', ARGV[i + 3], ARGV[i]) end
        reply[#reply + 1] = 1
    else
        reply[#reply + 1] = 0
    end
end
flush()
return reply
