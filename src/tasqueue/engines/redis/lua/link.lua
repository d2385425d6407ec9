-- Read a chain or a group.
-- include: base clock waking due lines record links
--
-- ARGV    link, then first and last index of a group's outcomes ("" for none: then all states are read, no results)
-- result  false, or {n, state, pos, generation, outcomes: index, outcome, ...}
-- cost    O(what is read)
local link = ARGV[1]
local v = call('HMGET', K .. 'L:' .. link, 'n', 'st', 'gen', 'gone')
if not v[1] or v[4] and tonumber(v[4]) <= now then return false end
local reply = {v[1], v[2], is_chain(link) and position(link) or 0, v[3]}
if ARGV[2] == '' then
    local all = call('HGETALL', K .. 'G:' .. link)
    for i = 2, #all, 2 do all[i] = string.sub(all[i], 1, 1) end
    reply[5] = all
else
    local first, last = tonumber(ARGV[2]), math.min(tonumber(ARGV[3]), tonumber(v[1]) - 1)
    local all = {}
    for i = first, last, CHUNK do
        local fields = {}
        for j = i, math.min(i + CHUNK - 1, last) do fields[#fields + 1] = j end
        for _, outcome in ipairs(call('HMGET', K .. 'G:' .. link, unpack(fields))) do all[#all + 1] = outcome end
    end
    reply[5] = all
end
return reply
