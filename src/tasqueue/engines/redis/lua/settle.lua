-- Apply each step whose token still holds its job (G3); a step that this token applied before is accepted (G14).
-- include: base clock must waking due lines record links
--
-- ARGV    worker, count, the ids, then runs of steps that take the ids in their order:
--         "E", claim, state, ttl or "", count, then the rest of each record: ends of which nothing follows;
--         "C", "G" in its place: steps of chains, members of groups, that succeeded and whose ids tell their links
--         "L", claim, state, ttl or "", rest, link, pos, count of follow-ups, each: queue, priority, date or "", id, rest
--         "T", count, links: before the others, when groups are told of their members by more than one run: in what order
--         "B", claim, kind, delay, parked at, key, rest: back into the queue
-- result  {groups ended, callbacks, 0 or 1 of each step ...}; without the latter when all were accepted
-- cost    3 us a job that ends: one HMGET, one HDEL, one XADD a batch, and one SET a job. Of a chain 5 us more: one MGET, one
--         MSET, one HSET, one ZADD a batch; of a group one HSET and one HLEN a group and batch
local ARGV, byte = ARGV, string.byte -- what is local is found sooner
local worker, count = ARGV[1], tonumber(ARGV[2])
local run = K .. 'run:' .. worker
local tokens = {}
for first = 3, 2 + count, CHUNK do
    local last = math.min(first + CHUNK, 3 + count) - 1
    local found = call('HMGET', run, unpack(ARGV, first, last))
    if first == 3 then
        tokens = found
    else
        for i = 1, #found do tokens[first - 3 + i] = found[i] end
    end
end

-- Whose tokens hold: decided before anything is written.
local ends = {E = true, C = true, G = true}
local accepted, mine, gone, good = {}, {}, {}, 0
local at, k, following = 3 + count, 0, 0
local total = #ARGV
while at <= total do
    local op, claim = ARGV[at], ARGV[at + 1] .. ':'
    local n, size = 1, #claim
    if ends[op] then
        n = tonumber(ARGV[at + 4])
        at = at + 5 + n
    elseif op == 'L' then
        following = following + 1 + ARGV[at + 7]
        at = at + 8 + 5 * ARGV[at + 7]
    elseif op == 'B' then
        following = following + 1
        at = at + 7
    else
        n = 0
        at = at + 2 + ARGV[at + 1]
    end
    for _ = 1, n do
        k = k + 1
        local token = tokens[k]
        if token and sub(token, 1, size) == claim then
            mine[k] = true
            good = good + 1
            gone[good] = ARGV[2 + k]
        end
    end
end

-- Whether this very token's last act was such a step. `state`: what an end went to, false for the others.
local function applied_before(id, claim, state)
    local rec = call('GET', R .. id)
    if not rec then return false end
    local p = parse(rec)
    if p.worker ~= worker or p.claim ~= tonumber(claim) then return false end
    if state then return p.state == tonumber(state) end
    return (p.state == 1 or p.state == 2 or p.state == 7) and not holder(id)
end

for first, last in each_chunk(gone, 1) do
    call('HDEL', run, unpack(gone, first, last))
end
local notes = call('EXISTS', K .. 'note:' .. worker) == 1
local asked = call('EXISTS', K .. 'asked') == 1

local function progress(id)
    if not notes then return '' end
    local note = call('HGET', K .. 'note:' .. worker, id)
    if not note then return '' end
    call('HDEL', K .. 'note:' .. worker, id)
    return note
end

local refused = good < count

-- Those that something follows end one by one, but are written down together.
local open, entries = {}, {}
local function entry_of(state, ttl, id)
    local name = state .. ':' .. ttl
    local entry = open[name]
    if not entry then
        entry = {num = call('INCR', K .. 'seq'), state = state, ttl = ttl}
        entries[#entries + 1] = entry
        open[name] = entry
    end
    entry[#entry + 1] = id
    if #entry == ENTRY then open[name] = nil end
    return entry.num
end

if following > 1 then reserve(following) end

-- Of a record from its seq on: its position, and what was saved or false.
local function saved_of(rest)
    local pos, size = sunpack('<I4I4', rest, 18)
    return pos, (size > 0 or byte(rest, 9) % 4 >= 2) and sub(rest, #rest - size + 1)
end

at, k = 3 + count, 0
while at <= total do
    local op, claim = ARGV[at], ARGV[at + 1]
    if ends[op] then
        local state, ttl, n = ARGV[at + 2], ARGV[at + 3], tonumber(ARGV[at + 4])
        local num = call('INCR', K .. 'seq')
        local gone = ttl ~= '' and string.format('%d', now + ttl)
        local head = spack('<Bdd', state, now, num)
        local names
        if not refused then
            names = n
        else
            names = {}
        end
        at = at + 4
        for i = 1, n do
            local id = ARGV[2 + k + i]
            if mine[k + i] then
                local rec = head .. ARGV[at + i]
                if op == 'C' then
                    note_step(id, saved_of(ARGV[at + i]))
                elseif op == 'G' then
                    local pos, saved = saved_of(ARGV[at + i])
                    tell('g:' .. string.match(id, '^(.*)~'), pos, state, saved)
                end
                if notes then rec = rec .. progress(id) end
                if ttl == '' then
                    call('SET', R .. id, rec)
                else
                    call('SET', R .. id, rec, 'PXAT', gone)
                end
                if watched then ended('j:' .. id) end
                if refused then names[#names + 1] = id end
            else
                accepted[k + i] = applied_before(id, claim, state)
            end
        end
        for first = 1, refused and #names or n, ENTRY do
            local last = math.min(first + ENTRY - 1, refused and #names or n)
            if first > 1 then num = call('INCR', K .. 'seq') end
            if first > 1 then
                local late = spack('<d', num)
                for i = first, last do
                    local id = refused and names[i] or ARGV[2 + k + i]
                    call('SETRANGE', R .. id, 9, late)
                end
            end
            local blob
            if refused then
                blob = concat(names, '\255', first, last)
            else
                blob = concat(ARGV, '\255', 2 + k + first, 2 + k + last)
            end
            note_ended(state, num, last - first + 1, blob, ttl)
        end
        if asked then
            for i = 1, n do
                if mine[k + i] then call('SREM', K .. 'asked', ARGV[2 + k + i]) end
            end
        end
        k = k + n
        at = at + 1 + n
    elseif op == 'L' then
        k = k + 1
        local id, state, ttl, rest, link = ARGV[2 + k], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4], ARGV[at + 5]
        local pos, follow = tonumber(ARGV[at + 6]), tonumber(ARGV[at + 7])
        at = at + 8
        if mine[k] then
            if ttl == '0' then
                call('DEL', R .. id)
                progress(id)
            else
                local rec = spack('<Bdd', state, now, entry_of(state, ttl, id)) .. rest .. progress(id)
                if ttl == '' then
                    call('SET', R .. id, rec)
                else
                    call('SET', R .. id, rec, 'PX', ttl)
                end
            end
            if asked then call('SREM', K .. 'asked', id) end
            ended('j:' .. id)
            for i = at, at + 5 * follow - 1, 5 do
                insert(ARGV[i], tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2]), false, '', ARGV[i + 3], ARGV[i + 4])
            end
            if link ~= '' then
                local _, saved = saved_of(rest)
                tell(link, pos, tonumber(state), saved)
            end
        else
            accepted[k] = applied_before(id, claim, state)
        end
        at = at + 5 * follow
    elseif op == 'T' then
        local n = tonumber(ARGV[at + 1])
        for i = 1, n do
            told[i] = ARGV[at + 1 + i]
            outcomes[told[i]] = {}
        end
        at = at + 2 + n
    else
        k = k + 1
        local id, kind, delay, key, rest = ARGV[2 + k], ARGV[at + 2], tonumber(ARGV[at + 3]), ARGV[at + 5], ARGV[at + 6]
        local parked = tonumber(ARGV[at + 4])
        at = at + 7
        if mine[k] then
            local place, queue = string.match(tokens[k], '^%d+:%d+:([^:]+):(.*)$')
            progress(id)
            if asked and kind ~= '3' then call('SREM', K .. 'asked', id) end
            local state, when = 1, 0
            if kind == '4' then
                if parked == 0 then parked = now end
                state, when = 7, parked + delay
                call('ZADD', K .. 'pk:' .. queue, when, id)
                call('HSET', K .. 'pkey:' .. key, id, place)
                call('SADD', K .. 'parks', key)
                call('SADD', K .. 'queues', queue)
                redated[queue] = true
            elseif kind == '3' then
                to_line(queue, place, id)
            elseif delay > 0 then
                state, when = 2, now + delay
                to_due(queue, when, sunpack('<d', rest), id)
            else
                to_line(queue, next_place() - sunpack('b', rest, 14) * PRIORITY, id)
            end
            call('SET', R .. id, spack('<Bdd', state, when, parked) .. rest)
        else
            accepted[k] = applied_before(id, claim, false)
        end
    end
end
for _, entry in ipairs(entries) do
    note_ended(entry.state, entry.num, #entry, concat(entry, '\255'), entry.ttl)
end
if steps > 0 then go_on() end
tell_groups()
flush()
local reply = {groups_ended, callbacks}
if refused then
    for i = 1, count do reply[2 + i] = (mine[i] or accepted[i]) and 1 or 0 end
end
return reply
