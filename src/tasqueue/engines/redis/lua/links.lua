-- Chains and groups: what the end of one job means to the whole, and the insertion of what follows.
--
-- L:<link>  n, st (0, or the state it has ended in), gen, rt, ft (retention), mp (most bytes of packed results),
--           s, e (callbacks), gone (expiry), i<pos> (ids);  G:<link>  index -> state, "1" and what was saved or "0"
--
-- Of the step after the one that an ended chain is at, if it is held back, `num` is 1. So when a step succeeds, the record of
-- the next one says whether it may be let go.

local sub = string.sub

local function outlived(link)
    local gone = call('HGET', K .. 'L:' .. link, 'gone')
    return gone and tonumber(gone) <= now
end

local function is_chain(link)
    return string.byte(link) == 99 -- c
end

-- One long value, under a name that is no id, keeps it a table: as a packed list the hash would be searched from end to end for each chain.
local LONG = string.rep('-', 100)
local function set_positions(...)
    call('HSET', K .. 'pos', '\255', LONG, ...)
end

local function position(link)
    return tonumber(call('HGET', K .. 'pos', sub(link, 3)) or 0)
end

-- Notes whether the step after the one that a chain is at may be let go (0) or not (1).
local function mark_next(link, stopped)
    local id = call('HGET', K .. 'L:' .. link, 'i' .. (position(link) + 1))
    if id and call('GETRANGE', R .. id, 0, 0) == '\0' then call('SETRANGE', R .. id, 9, spack('<d', stopped)) end
end

local function forget_link(link)
    local key = K .. 'L:' .. link
    if is_chain(link) then
        for i = position(link), tonumber(call('HGET', key, 'n') or 0) - 1 do
            local id = call('HGET', key, 'i' .. i)
            local rec = id and call('GET', R .. id)
            if rec and string.byte(rec) == 0 then
                local p = parse(rec, id)
                if p.link == link then forget(id, p) end
            end
        end
    end
    call('DEL', key, K .. 'G:' .. link)
    call('ZREM', K .. 'lx', link)
    if is_chain(link) then
        local id = sub(link, 3)
        call('ZREM', K .. 'chains', id)
        if call('HDEL', K .. 'pos', id) == 1 and call('HLEN', K .. 'pos') == 1 then call('DEL', K .. 'pos') end
    end
    ended(link)
end

-- Inserts a record (from its flags on) if its id is new. What an earlier link of that name has left makes room.
local function insert(queue, priority, due, held, link, id, rest)
    local seq = next_place()
    local state = held and 0 or due and due > now and 2 or 1
    local rec = spack('<Bddd', state, state ~= 1 and due or 0, 0, seq) .. rest
    if not call('SET', R .. id, rec, 'NX') then
        local p = parse(call('GET', R .. id), id)
        if not (link ~= '' and p.link == link or p.state == 0 and outlived(p.link)) then return end
        forget(id, p)
        call('SET', R .. id, rec)
    end
    if state == 1 then
        to_line(queue, seq - priority * PRIORITY, id)
    elseif state == 2 then
        to_due(queue, due, seq, id)
    else
        hold(queue, 1)
        stir(queue, 0)
    end
end

local function end_link(link, state)
    local key = K .. 'L:' .. link
    local ttl = call('HGET', key, state == 5 and 'ft' or 'rt')
    if ttl == '0' then return forget_link(link) end
    if ttl ~= '' then
        call('HSET', key, 'st', state, 'gone', now + ttl)
        call('ZADD', K .. 'lx', now + ttl, link)
    else
        call('HSET', key, 'st', state)
    end
    if is_chain(link) then
        if state == 4 then call('ZREM', K .. 'chains', sub(link, 3)) else mark_next(link, 1) end
    end
    ended(link)
end

-- The first part of a record: state, when, num, seq, flags, size of prev; what follows starts at 31.
local FRONT = '<BdddBI4'

-- A held one becomes ready at a new place, or due. `rec` is its record; what the job before saved is put in, unless `saved` is nil.
local function let_go(id, rec, saved)
    local _, when, _, seq, flags, _, priority, size = sunpack(FRONT .. 'bH', rec)
    local queue = sub(rec, 73, 72 + size)
    local state = 2
    if when <= now then state, when = 1, 0 end
    if saved == nil or saved == false and flags % 2 == 0 then
        call('SETRANGE', R .. id, 0, spack('<Bdd', state, when, 0))
    else
        local p = parse(rec)
        p.state, p.when, p.num, p.prev = state, when, 0, saved
        call('SET', R .. id, build(p))
    end
    hold(queue, -1)
    if state == 2 then
        to_due(queue, when, seq, id)
    else
        to_line(queue, next_place() - priority * PRIORITY, id)
    end
end

local function step_ended(link, pos, state, saved)
    local key = K .. 'L:' .. link
    local v = call('HMGET', key, 'st', 'n', 'i' .. (pos + 1), 'gone')
    if not v[1] or v[4] and tonumber(v[4]) <= now then return end
    local running = v[1] == '0'
    if state ~= 4 then
        if running then end_link(link, state) end
        return
    end
    set_positions(sub(link, 3), pos + 1)
    if pos + 1 == tonumber(v[2]) then
        if running then end_link(link, 4) end
        return
    end
    if not running then mark_next(link, 1) end
    local rec = v[3] and call('GET', R .. v[3])
    if not rec then return end
    if running and string.byte(rec) == 0 then return let_go(v[3], rec, saved) end
    local p = parse(rec)
    p.prev = saved
    call('SET', R .. v[3], build(p), 'KEEPTTL')
end

-- Steps that have succeeded, of those whose ids tell their chains: what that means is done by `go_on`, for all together.
local steps, step_ids, step_keys, step_chains, step_positions, step_saved = 0, {}, {}, {}, {}, {}
local behind, after, counted = {}, {}, {} -- by position: where "~c<pos>" begins, from the end; "~c<pos + 1>"; "<pos + 1>"

local function note_step(id, pos, saved)
    local suffix = after[pos]
    if not suffix then
        counted[pos] = string.format('%d', pos + 1)
        suffix = '~c' .. counted[pos]
        after[pos] = suffix
        behind[pos] = -3 - #string.format('%d', pos)
    end
    local chain = sub(id, 1, behind[pos])
    local following = chain .. suffix
    steps = steps + 1
    step_ids[steps], step_keys[steps] = following, R .. following
    step_chains[steps], step_positions[steps], step_saved[steps] = chain, pos, saved
end

-- Ends a chain with its last step, if it is one that goes on and is kept for a while: `leaving` takes its expiry.
local function completed(link, count, leaving)
    local key = K .. 'L:' .. link
    local v = call('HMGET', key, 'st', 'n', 'rt')
    if v[1] ~= '0' or v[2] ~= count or v[3] == '' or v[3] == '0' then return false end
    local gone = string.format('%d', now + v[3])
    call('HSET', key, 'st', 4, 'gone', gone)
    local n = #leaving
    leaving[n + 1], leaving[n + 2] = gone, link
    if watched then ended(link) end
    return true
end

-- The next steps that are held back as they were submitted are let go together, and chains that are completed are written
-- down together; the rest, one by one.
local function go_on()
    local form, whole = string.format, FRONT .. 'bH'
    local chains, positions, known = step_chains, step_positions, step_saved
    local moved, m, complete, leaving, others = {}, 0, {}, {}, {}
    for first, last in each_chunk(step_keys, 1, 2) do
        local found = call('MGET', unpack(step_keys, first, last))
        local records, n = {}, 0
        local place = call('INCRBY', K .. 'seq', #found) - #found - first + 1
        local current, line, l, let_gone
        for i = first, last do
            local rec = found[i - first + 1]
            local state, when, stopped, seq, flags, priority, size, _
            if rec then state, when, stopped, seq, flags, _, priority, size = sunpack(whole, rec) end
            if state == 0 and stopped == 0 and when == 0 and flags == 4 then
                local saved, queue, id = known[i], sub(rec, 73, 72 + size), step_ids[i]
                if queue ~= current then
                    if current then hold(current, -let_gone) end
                    current, let_gone, line = queue, 0, lines[queue] or {}
                    lines[queue], l = line, #line
                end
                if saved then
                    records[n + 2] = spack(FRONT, 1, 0, 0, seq, 5, #saved) .. sub(rec, 31) .. saved
                else
                    records[n + 2] = spack(FRONT, 1, 0, 0, seq, 4, 0) .. sub(rec, 31)
                end
                records[n + 1] = step_keys[i]
                n = n + 2
                line[l + 1], line[l + 2] = form('%d', place + i - priority * PRIORITY), id
                l = l + 2
                let_gone = let_gone + 1
                moved[m + 1], moved[m + 2] = chains[i], counted[positions[i]]
                m = m + 2
            elseif not rec and completed('c:' .. chains[i], counted[positions[i]], leaving) then
                moved[m + 1], moved[m + 2] = chains[i], counted[positions[i]]
                m = m + 2
                complete[#complete + 1] = chains[i]
            else
                others[#others + 1] = i
            end
        end
        if n > 0 then
            hold(current, -let_gone)
            call('MSET', unpack(records))
        end
    end
    for first, last in each_chunk(moved, 1, 2) do set_positions(unpack(moved, first, last)) end
    for first, last in each_chunk(complete, 1) do call('ZREM', K .. 'chains', unpack(complete, first, last)) end
    for first, last in each_chunk(leaving, 1, 2) do call('ZADD', K .. 'lx', unpack(leaving, first, last)) end
    for _, i in ipairs(others) do step_ended('c:' .. chains[i], positions[i], 4, known[i]) end
end

local function pack_results(n, found, most)
    local head
    if n < 16 then head = string.char(144 + n)
    elseif n < 65536 then head = '\220' .. spack('>H', n)
    else head = '\221' .. spack('>I4', n) end
    local parts, size = {head}, #head
    for i = 1, n do
        local saved = sub(found[i], 2)
        local body = '\192'
        if sub(saved, 1, 1) == '1' then
            saved = sub(saved, 2)
            if #saved < 256 then body = '\196' .. string.char(#saved)
            elseif #saved < 65536 then body = '\197' .. spack('>H', #saved)
            else body = '\198' .. spack('>I4', #saved) end
            body = body .. saved
        end
        parts[i + 1] = body
        size = size + #body
        if size > most then return false end
    end
    return concat(parts)
end

local groups_ended, callbacks = 0, 0

local function group_ended(link, n)
    local key = K .. 'L:' .. link
    local found, good = {}, true
    for first = 0, n - 1, CHUNK do
        local fields = {}
        for i = first, math.min(first + CHUNK, n) - 1 do fields[#fields + 1] = i end
        for _, outcome in ipairs(call('HMGET', K .. 'G:' .. link, unpack(fields))) do
            found[#found + 1] = outcome
            if sub(outcome, 1, 1) ~= '4' then good = false end
        end
    end
    local v = call('HMGET', key, good and 's' or 'e', 'gen', 'mp')
    groups_ended = groups_ended + 1
    end_link(link, good and 4 or 5)
    local templates = v[1]
    if templates == '' then return end
    local prev = pack_results(n, found, tonumber(v[3]))
    local at = 1
    while at <= #templates do
        local a, b, c, priority, due
        a, b, c, priority, due, at = sunpack('<HHI4bd', templates, at)
        local id = sub(templates, at, at + a - 1)
        local queue = sub(templates, at + a, at + a + b - 1)
        local p = parse(string.rep('\0', 25) .. sub(templates, at + a + b, at + a + b + c - 1))
        at = at + a + b + c
        p.prev = prev
        if v[2] ~= '0' then id = id .. '.' .. v[2] end
        insert(queue, priority, due >= 0 and due, false, '', id, sub(build(p), 26))
        callbacks = callbacks + 1
    end
end

local outcomes, told = {}, {}

-- A job of a chain or group has ended. Groups are told by `tell_groups`, once for all their members.
local function tell(link, pos, state, saved)
    if is_chain(link) then return step_ended(link, pos, state, saved) end
    local list = outcomes[link]
    if not list then
        list = {}
        outcomes[link] = list
        told[#told + 1] = link
    end
    list[#list + 1] = pos
    list[#list + 1] = state .. (saved and '1' .. saved or '0')
end

-- Their callbacks come in the order of `told`, which is that of the first mention, unless it was said before.
local function tell_groups()
    for _, link in ipairs(told) do
        local list, key = outcomes[link], K .. 'G:' .. link
        local v = #list > 0 and call('HMGET', K .. 'L:' .. link, 'n', 'gone', 'st') or {false}
        if v[1] and not (v[2] and tonumber(v[2]) <= now) then
            for first, last in each_chunk(list, 1, 2) do
                call('HSET', key, unpack(list, first, last))
            end
            if v[3] == '0' and call('HLEN', key) == tonumber(v[1]) then group_ended(link, tonumber(v[1])) end
        end
    end
    outcomes, told = {}, {}
end

-- Cancels a parsed job that has not ended: true when it is done, false when its worker has to be asked.
local function cancel(id, p, ttl)
    if take_out(id, p, true) == 'held' then
        call('SADD', K .. 'asked', id)
        return false
    end
    call('SREM', K .. 'asked', id)
    if ttl == '0' then
        call('DEL', R .. id)
    else
        p.state, p.when, p.num, p.result = 6, now, call('INCR', K .. 'seq'), false
        local rec = build(p)
        if ttl == '' then call('SET', R .. id, rec) else call('SET', R .. id, rec, 'PX', ttl) end
        note_ended(6, p.num, 1, id, ttl)
    end
    ended('j:' .. id)
    if p.link ~= '' then tell(p.link, p.pos, 6, false) end
    return true
end
