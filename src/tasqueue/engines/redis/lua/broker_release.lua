-- Give messages back that are still leased.
-- include: base clock must waking broker
--
-- ARGV    queue, date from which they may be had again (ms from now, or "" for their old place at once), then spot and id of each
-- result  1
-- cost    a ZREM a message, one ZADD
local delay, later = tonumber(ARGV[2]), 0
for i = 3, #ARGV do
    local member = ARGV[i]
    if call('ZREM', LEASED, member) == 1 then
        if delay then
            call('ZADD', DUE, now + delay, member)
            later = later + 1
        else
            to_line(old_score(member), id_of(member))
        end
    end
end
wake(Q, settle_line() + later)
return 1
