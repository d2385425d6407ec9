-- Read jobs, and who holds those that run.
-- include: base clock waking due lines record links
--
-- ARGV    the ids
-- result  {record or false of each, ..., {index from 1, worker, token, progress or false of each that runs}}
-- cost    0.5 us a job, and for those that wait or run one HMGET a worker
local reply = {}
for first, last in each_chunk(ARGV, 1) do
    local keys = {}
    for i = first, last do keys[#keys + 1] = R .. ARGV[i] end
    for _, rec in ipairs(call('MGET', unpack(keys))) do reply[#reply + 1] = rec end
end
local open, where = {}, {}
for i, rec in ipairs(reply) do
    local state = rec and string.byte(rec)
    if state == 1 then
        open[#open + 1] = ARGV[i]
        where[#where + 1] = i
    elseif state == 0 and outlived(parse(rec, ARGV[i]).link) then
        reply[i] = false
    end
end
local held = {}
for first, last in each_chunk(open, 1) do
    for _, worker in ipairs(call('ZRANGE', K .. 'workers', 0, -1)) do
        for i, token in ipairs(call('HMGET', K .. 'run:' .. worker, unpack(open, first, last))) do
            if token then
                local at = #held
                held[at + 1], held[at + 2], held[at + 3] = where[first - 1 + i], worker, token
                held[at + 4] = call('HGET', K .. 'note:' .. worker, open[first - 1 + i])
            end
        end
    end
end
reply[#reply + 1] = held
return reply
