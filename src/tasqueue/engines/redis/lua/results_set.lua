-- Write each value if the revision that is stored is the expected one.
-- include: results
--
-- ARGV    key, expected revision ("": there must be none), lifetime (ms, "" for ever), new revision and value of each
-- result  for each: 1, or 0 when another is stored
-- cost    a GETRANGE and a SET a value
local create = false
for i = 2, #ARGV, 4 do create = create or ARGV[i] == '' end
-- As in must.lua: where nothing is new, something runs or ends, and that goes on when memory is full.
if not create then call('DEL', K .. 'none') end
local reply = {}
for i = 1, #ARGV, 4 do
    local key, expected, life, stored = K .. 'v:' .. ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
    local revision = call('GETRANGE', key, 0, 7)
    if revision == expected then
        if life == '' then call('SET', key, stored) else call('SET', key, stored, 'PX', life) end
        reply[#reply + 1] = 1
    else
        -- A call whose answer was lost is repeated with the revision that it wrote.
        reply[#reply + 1] = revision == string.sub(stored, 1, 8) and 1 or 0
    end
end
return reply
