-- Store what is new by id, all or nothing.
-- include: base clock waking due lines record links
--
-- ARGV    number of links; each: key, n, rt, ft, mp, s, e, count of ids, then pos, id of each
--         then runs of records: queue, priority, link, "" (ready) or date or "held", count, then id, rest of each
-- result  1
-- cost    2.5 us a job: one MSETNX and one ZADD a run
local fresh = {}
local at = 2
for _ = 1, tonumber(ARGV[1]) do
    local link, n, count = ARGV[at], ARGV[at + 1], 2 * tonumber(ARGV[at + 7])
    local key = K .. 'L:' .. link
    local there = call('HMGET', key, 'n', 'gone')
    if there[1] and there[2] and tonumber(there[2]) <= now then
        forget_link(link)
        there[1] = false
    end
    if not there[1] then
        fresh[link] = true
        call('HSET', key, 'n', n, 'rt', ARGV[at + 2], 'ft', ARGV[at + 3], 'mp', ARGV[at + 4], 's', ARGV[at + 5],
            'e', ARGV[at + 6], 'st', 0, 'gen', 0)
        for first = at + 8, at + 7 + count, CHUNK do
            local fields = {unpack(ARGV, first, math.min(first + CHUNK, at + 8 + count) - 1)}
            for i = 1, #fields, 2 do fields[i] = 'i' .. fields[i] end
            call('HSET', key, unpack(fields))
        end
        if is_chain(link) then call('ZADD', K .. 'chains', now, sub(link, 3)) end
    end
    at = at + 8 + count
end

local total = #ARGV
local ready, held_back = spack('<Bdd', 1, 0, 0), spack('<Bdd', 0, 0, 0)
while at <= total do
    local queue, priority, link, due, count = ARGV[at], tonumber(ARGV[at + 1]), ARGV[at + 2], ARGV[at + 3], tonumber(ARGV[at + 4])
    local from = at + 5
    at = from + 2 * count
    if link == '' or fresh[link] then
        local done = false
        if due == '' or due == 'held' then
            local waits, state, top = due == 'held', ready, priority * PRIORITY
            if waits then state = held_back end
            local seq = call('INCRBY', K .. 'seq', count) - count
            done = true
            for first = 0, count - 1, CHUNK / 2 do
                local pairs_, line = {}, {}
                local n = 1
                for i = first, math.min(first + CHUNK / 2, count) - 1 do
                    local id = ARGV[from + 2 * i]
                    local place = seq + i + 1
                    pairs_[n] = R .. id
                    pairs_[n + 1] = state .. spack('<d', place) .. ARGV[from + 2 * i + 1]
                    line[n] = place - top
                    line[n + 1] = id
                    n = n + 2
                end
                if call('MSETNX', unpack(pairs_)) == 1 then
                    if waits then
                        hold(queue, (n - 1) / 2)
                        stir(queue, 0)
                    else
                        call('ZADD', K .. 'q:' .. queue, unpack(line))
                        stir(queue, (n - 1) / 2)
                    end
                else
                    for i = 1, n - 1, 2 do
                        insert(queue, priority, false, waits, link, line[i + 1], string.sub(pairs_[i + 1], 26))
                    end
                end
            end
        end
        if not done then
            local held = string.sub(due, 1, 4) == 'held'
            local date = tonumber(held and string.sub(due, 5) or due)
            for i = from, at - 1, 2 do
                insert(queue, priority, date, held, link, ARGV[i], ARGV[i + 1])
            end
        end
    end
end
flush()
return 1
