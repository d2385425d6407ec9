-- Take ids out of an index.
-- include: results
--
-- ARGV    index, then the ids
-- result  1
-- cost    an HMGET, a ZREM and an HDEL for all
local entries, ordered = K .. 'i:' .. ARGV[1], K .. 'x:' .. ARGV[1]
for first = 2, #ARGV, CHUNK do
    local ids = {unpack(ARGV, first, math.min(first + CHUNK - 1, #ARGV))}
    local old = {}
    for _, member in ipairs(call('HMGET', entries, unpack(ids))) do
        if member then old[#old + 1] = member end
    end
    if #old > 0 then
        call('ZREM', ordered, unpack(old))
        call('HDEL', entries, unpack(ids))
    end
end
return 1
