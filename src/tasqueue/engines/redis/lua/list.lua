-- Where jobs are that may match a filter: ids of the newest of each place. Those that are held back, of all queues.
-- include: base
--
-- ARGV    most of each place, queue or "" for all, then the states
-- result  {id, ...}
-- cost    O(queues + workers + chains + ids)
local most, only = tonumber(ARGV[1]), ARGV[2]
local wanted = {}
for i = 3, #ARGV do wanted[tonumber(ARGV[i])] = true end
local found = {}
local function add(ids, from)
    for _, id in ipairs(ids) do found[#found + 1] = from and string.sub(id, from) or id end
end
local queues = only ~= '' and {only} or call('SRANDMEMBER', K .. 'queues', 10000)
for _, queue in ipairs(queues) do
    if wanted[1] then add(call('ZRANGE', K .. 'q:' .. queue, -most, -1)) end
    if wanted[2] then add(call('ZRANGE', K .. 'due:' .. queue, -most, -1), 17) end
    if wanted[7] then add(call('ZRANGE', K .. 'pk:' .. queue, -most, -1)) end
end
if wanted[0] then
    local chains, n = call('ZRANGE', K .. 'chains', -most, -1), 0
    for i = #chains, 1, -1 do
        local key = K .. 'L:c:' .. chains[i]
        local at, total = tonumber(call('HGET', K .. 'pos', chains[i]) or 0), tonumber(call('HGET', key, 'n') or 0)
        for first = at, total - 1, CHUNK do
            local fields = {}
            for j = first, math.min(first + CHUNK, total) - 1 do fields[#fields + 1] = 'i' .. j end
            local ids = call('HMGET', key, unpack(fields))
            for j = 1, #ids do
                if ids[j] then found[#found + 1] = ids[j] end
            end
            n = n + #ids
        end
        if n >= most then break end
    end
end
if wanted[3] then
    for _, worker in ipairs(call('ZRANGE', K .. 'workers', 0, -1)) do add(call('HKEYS', K .. 'run:' .. worker)) end
end
for state = 4, 6 do
    if wanted[state] then
        local from, n = '+', 0
        while n < most do
            local entries = call('XREVRANGE', K .. 'x:' .. state, from, '-', 'COUNT', 20)
            if #entries == 0 then break end
            for _, entry in ipairs(entries) do
                for id in string.gmatch(entry[2][2] .. '\255', '(.-)\255') do
                    found[#found + 1] = id
                    n = n + 1
                end
                from = string.format('%.0f', tonumber((string.match(entry[1], '^%d+'))) - 1)
            end
            if from == '-1' then break end
        end
    end
end
return found
