-- Forget ended jobs: record, result, index entry.
-- include: base clock must waking due lines record
--
-- ARGV    the ids
-- result  {1 or 0 of each}
-- cost    5 us a job
local reply = {}
for i, id in ipairs(ARGV) do
    local rec = call('GET', R .. id)
    local state = rec and string.byte(rec)
    reply[i] = 0
    if state and state >= 4 and state <= 6 then
        take_out(id, parse(rec))
        call('DEL', R .. id)
        call('SREM', K .. 'asked', id)
        reply[i] = 1
    end
end
return reply
