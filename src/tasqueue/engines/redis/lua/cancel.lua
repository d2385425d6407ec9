-- Cancel jobs: what waits ends at once, what runs is asked.
-- include: base clock must waking due lines record links
--
-- ARGV    ttl or "", then the ids
-- result  {groups ended, callbacks, then for each: 2 done, 1 asked, 0 neither}
-- cost    6 us a job
local reply = {0, 0}
for i = 2, #ARGV do
    local rec = call('GET', R .. ARGV[i])
    local p = rec and parse(rec, ARGV[i])
    if not p or p.state >= 4 and p.state <= 6 or p.state == 0 and outlived(p.link) then
        reply[i + 1] = 0
    else
        reply[i + 1] = cancel(ARGV[i], p, ARGV[1]) and 2 or 1
        tell_groups()
    end
end
flush()
reply[1], reply[2] = groups_ended, callbacks
return reply
