-- A page of an index, newest first.
-- include: results
--
-- ARGV    index, limit, id that the page comes after ("" or unknown: from the newest)
-- result  the ids
-- cost    O(log n) and the page
local ordered = K .. 'x:' .. ARGV[1]
local last = call('HGET', K .. 'i:' .. ARGV[1], ARGV[3])
local start = last and call('ZREVRANK', ordered, last) + 1 or 0
local ids = call('ZREVRANGE', ordered, start, start + tonumber(ARGV[2]) - 1)
for i, member in ipairs(ids) do ids[i] = string.sub(member, 17) end
return ids
