-- Store the messages that are new by id.
-- include: base clock waking broker
--
-- ARGV    queue, then due (ms, or "" for at once), priority, id, body of each
-- result  1
-- cost    a HSETNX a message, one ZADD for those that are ready
call('INCRBY', K .. 'seq', 0) -- refused when memory is full, before anything was done
local stirred = bring_back() -- what is due stands before what is new
local n = (#ARGV - 1) / 4
local place = call('INCRBY', K .. 'seq', n) - n
for i = 2, #ARGV, 4 do
    local due, priority, id = tonumber(ARGV[i]), tonumber(ARGV[i + 1]), ARGV[i + 2]
    place = place + 1
    if call('HSETNX', BODIES, id, ARGV[i + 3]) == 1 then
        if due and due > now then
            call('ZADD', DUE, due, to_spot(place, priority) .. id)
            stirred = stirred + 1
        else
            to_line(place - priority * PRIORITY, id)
        end
    end
end
wake(Q, settle_line() + stirred)
return 1
