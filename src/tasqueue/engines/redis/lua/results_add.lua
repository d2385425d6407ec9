-- Put ids into an index, or move them within it.
-- include: results
--
-- ARGV    index, time, then the ids, each once
-- result  1
-- cost    an HMGET, a ZREM, a ZADD and an HSET for all
local entries, ordered = K .. 'i:' .. ARGV[1], K .. 'x:' .. ARGV[1]
local number = call('INCRBY', K .. 'seq', #ARGV - 2) - (#ARGV - 2)
for first = 3, #ARGV, CHUNK do
    local ids = {unpack(ARGV, first, math.min(first + CHUNK - 1, #ARGV))}
    local old, line, notes = {}, {}, {}
    for _, member in ipairs(call('HMGET', entries, unpack(ids))) do
        if member then old[#old + 1] = member end
    end
    if #old > 0 then call('ZREM', ordered, unpack(old)) end
    for _, id in ipairs(ids) do
        number = number + 1
        local member = string.format('%016.0f', number) .. id
        line[#line + 1] = ARGV[2]
        line[#line + 1] = member
        notes[#notes + 1] = id
        notes[#notes + 1] = member
    end
    call('ZADD', ordered, unpack(line))
    call('HSET', entries, unpack(notes))
end
return 1
