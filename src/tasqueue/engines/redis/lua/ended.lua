-- Ids of ended jobs, newest first.
-- include: base
--
-- ARGV    state, limit, after or ""
-- result  {id, ...}
-- cost    1 us an id
local state, limit, after = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3]
local from, skip = '+', ''
if after ~= '' then
    local head = call('GETRANGE', R .. after, 0, 16)
    if head ~= '' and string.byte(head) == state then
        from, skip = string.format('%.0f', (sunpack('<d', head, 10))), after
    end
end
local found, looked = {}, 0
while #found < limit and looked < 50000 do
    local entries = call('XREVRANGE', K .. 'x:' .. state, from, '-', 'COUNT', 10)
    if #entries == 0 then break end
    for _, entry in ipairs(entries) do
        local num = string.match(entry[1], '^%d+')
        local ids = {}
        for id in string.gmatch(entry[2][2] .. '\255', '(.-)\255') do ids[#ids + 1] = id end
        local last = #ids
        if skip ~= '' then
            for i = 1, #ids do
                if ids[i] == skip then last = i - 1 end
            end
            skip = ''
        end
        for i = last, 1, -1 do
            looked = looked + 1
            local head = call('GETRANGE', R .. ids[i], 0, 16)
            if head ~= '' and string.byte(head) == state and sunpack('<d', head, 10) == tonumber(num) then
                found[#found + 1] = ids[i]
                if #found >= limit then return found end
            end
        end
        if num == '0' then return found end
        from = string.format('%.0f', tonumber(num) - 1)
    end
end
return found
