-- Lease ready jobs of several queues to a worker; the same number again returns what is still held under it.
-- include: base clock must waking due
--
-- ARGV    worker, number, engine (hex), then queue, limit of each
-- result  false when the worker is gone; else {now, next due or false, moved, {short queues}, {ids that somebody asked to
--         cancel}, then for each run: {id, place, id, place, ...}, {record, record, ...}}; of a repeat: {now, next due, 0, {},
--         {ids}, {id, token, ...}, {record, ...}}
-- cost    2.2 us a job: one ZPOPMIN, one MGET, one HSET a queue
local worker, number, engine = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local last = call('HGET', K .. 'w:' .. worker, 'n')
if not last then return false end

local paused, asked = {}, false
if call('EXISTS', K .. 'paused', K .. 'asked') > 0 then -- nearly never: so one look at both
    asked = call('EXISTS', K .. 'asked') == 1
    for _, queue in ipairs(call('HKEYS', K .. 'paused')) do paused[queue] = true end
end
local moved, short, earliest = 0, {}, false
local told = {}
local reply = {now, false, 0, short, told}

-- The queue's next date, after those that have come were made ready if `ripe`.
local function look_ahead(queue, ripe)
    local date = tonumber(call('ZRANGE', K .. 'due:' .. queue, 0, 0, 'WITHSCORES')[2])
    if date and ripe and date <= now then
        moved = moved + ripen(queue, 1000)
        date = tonumber(call('ZRANGE', K .. 'due:' .. queue, 0, 0, 'WITHSCORES')[2])
    end
    if date and (not earliest or date < earliest) then earliest = date end
end

local function records(ids)
    local keys = {}
    for i, id in ipairs(ids) do keys[i] = R .. id end
    return call('MGET', unpack(keys))
end

local function look_asked(taken)
    if not asked then return end
    for i = 1, #taken, 2 do
        if call('SISMEMBER', K .. 'asked', taken[i]) == 1 then told[#told + 1] = taken[i] end
    end
end

if number <= tonumber(last) then
    local held = call('HGETALL', K .. 'run:' .. worker)
    local prefix = number .. ':'
    local found = {}
    for i = 1, #held, 2 do
        if string.sub(held[i + 1], 1, #prefix) == prefix then
            found[#found + 1] = {held[i], held[i + 1], tonumber(string.match(held[i + 1], '^%d+:%d+:([^:]+)'))}
        end
    end
    table.sort(found, function(a, b) return a[3] < b[3] end)
    for first, last_ in each_chunk(found, 1) do
        local ids, pairs_ = {}, {}
        for i = first, last_ do
            ids[#ids + 1] = found[i][1]
            pairs_[#pairs_ + 1] = found[i][1]
            pairs_[#pairs_ + 1] = found[i][2]
        end
        look_asked(pairs_)
        reply[#reply + 1] = pairs_
        reply[#reply + 1] = records(ids)
    end
    for i = 4, #ARGV, 2 do
        if not paused[ARGV[i]] then look_ahead(ARGV[i]) end
    end
    reply[2] = earliest
    return reply
end

call('HSET', K .. 'w:' .. worker, 'n', number)
for i = 4, #ARGV, 2 do
    local queue, limit = ARGV[i], tonumber(ARGV[i + 1])
    local taken = 0
    if not paused[queue] then
        look_ahead(queue, true)
        local wanted, got = 0, 0
        while taken < limit and got == wanted do
            wanted = math.min(limit - taken, CHUNK / 2)
            local popped = call('ZPOPMIN', K .. 'q:' .. queue, wanted)
            got = #popped / 2
            if got == 0 then break end
            local keys = {}
            for j = 1, #popped, 2 do keys[#keys + 1] = R .. popped[j] end
            local found = call('MGET', unpack(keys))
            local hold, n = {}, 1
            local head, tail = ARGV[2] .. ':' .. now .. ':', ':' .. queue
            for j = 1, #found do
                if found[j] then -- else it was evicted, or deleted by a stranger
                    hold[n] = popped[2 * j - 1]
                    hold[n + 1] = head .. popped[2 * j] .. tail
                    n = n + 2
                end
            end
            if n > 1 then call('HSET', K .. 'run:' .. worker, unpack(hold)) end
            look_asked(popped)
            reply[#reply + 1] = popped
            reply[#reply + 1] = found
            taken = taken + #found
        end
    end
    if taken < limit then
        short[#short + 1] = queue
        call('ZADD', K .. 'idle:' .. queue, now, engine)
        call('PEXPIRE', K .. 'idle:' .. queue, 15000)
    elseif not paused[queue] and call('EXISTS', K .. 'idle:' .. queue) == 1 and call('EXISTS', K .. 'q:' .. queue) == 1 then
        wake(queue, 1) -- what is left is for the next sleeper
    end
end
reply[2], reply[3] = earliest, moved
return reply
