-- Chains and groups: what the end of one job means to the whole, and the insertion of what follows.
--
-- L:<link>  n, st (0, or the state it has ended in), pos, gen, rt, ft (retention), mp (most bytes of packed results),
--           s, e (callbacks), gone (expiry), i<pos> (ids);  G:<link>  index -> state, "1" and what was saved or "0"

local function outlived(link)
    local gone = call('HGET', K .. 'L:' .. link, 'gone')
    return gone and tonumber(gone) <= now
end

local function forget_link(link)
    local key = K .. 'L:' .. link
    if string.sub(link, 1, 2) == 'c:' then
        local v = call('HMGET', key, 'n', 'pos')
        for i = tonumber(v[2] or 0), tonumber(v[1] or 0) - 1 do
            local id = call('HGET', key, 'i' .. i)
            local rec = id and call('GET', R .. id)
            if rec and string.byte(rec) == 0 then
                local p = parse(rec)
                if p.link == link then forget(id, p) end
            end
        end
    end
    call('DEL', key, K .. 'G:' .. link)
    call('ZREM', K .. 'lx', link)
    ended(link)
end

-- Inserts a record (from its version on) if its id is new. What an earlier link of that name has left makes room.
local function insert(queue, priority, due, held, link, id, rest)
    local seq = next_place()
    local state = held and 0 or due and due > now and 2 or 1
    local rec = spack('<Bddd', state, state ~= 1 and due or 0, 0, seq) .. rest
    if not call('SET', R .. id, rec, 'NX') then
        local p = parse(call('GET', R .. id))
        if not (link ~= '' and p.link == link or p.state == 0 and outlived(p.link)) then return end
        forget(id, p)
        call('SET', R .. id, rec)
    end
    if state == 1 then
        to_line(queue, seq - priority * PRIORITY, id)
    elseif state == 2 then
        to_due(queue, due, seq, id)
    else
        call('ZADD', K .. 'held:' .. queue, seq, id)
        stir(queue, 0)
    end
end

local function end_link(link, state)
    local key = K .. 'L:' .. link
    local ttl = call('HGET', key, state == 5 and 'ft' or 'rt')
    if ttl == '0' then return forget_link(link) end
    call('HSET', key, 'st', state)
    if ttl ~= '' then
        call('HSET', key, 'gone', now + ttl)
        call('ZADD', K .. 'lx', now + ttl, link)
    end
    ended(link)
end

-- A held one becomes ready at a new place, or due. `rec` is its record; what the job before saved is put in, unless `saved` is nil.
local function let_go(id, rec, saved)
    local when = sunpack('<d', rec, 2)
    local seq, _, flags, priority = sunpack('<dBBb', rec, 18)
    local size = sunpack('<H', rec, 45)
    local queue = string.sub(rec, 73, 72 + size)
    local state = 2
    if when <= now then state, when = 1, 0 end
    if saved == nil or saved == false and flags == 0 then
        rec = spack('<Bd', state, when) .. string.sub(rec, 10)
    elseif flags == 0 then
        rec = spack('<Bd', state, when) .. string.sub(rec, 10, 26) .. '\1' .. string.sub(rec, 28, 64) .. spack('<I4', #saved)
            .. string.sub(rec, 69) .. saved
    else
        local p = parse(rec)
        p.state, p.when, p.prev = state, when, saved
        rec = build(p)
    end
    release(queue, id)
    if state == 2 then
        to_due(queue, when, seq, id)
    else
        to_line(queue, next_place() - priority * PRIORITY, id)
    end
    call('SET', R .. id, rec)
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
    call('HSET', key, 'pos', pos + 1)
    if pos + 1 == tonumber(v[2]) then
        if running then end_link(link, 4) end
        return
    end
    local rec = v[3] and call('GET', R .. v[3])
    if not rec then return end
    if running and string.byte(rec) == 0 then return let_go(v[3], rec, saved) end
    local p = parse(rec)
    p.prev = saved
    call('SET', R .. v[3], build(p), 'KEEPTTL')
end

local function pack_results(n, found, most)
    local head
    if n < 16 then head = string.char(144 + n)
    elseif n < 65536 then head = '\220' .. spack('>H', n)
    else head = '\221' .. spack('>I4', n) end
    local parts, size = {head}, #head
    for i = 1, n do
        local saved = string.sub(found[i], 2)
        local body = '\192'
        if string.sub(saved, 1, 1) == '1' then
            saved = string.sub(saved, 2)
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
            if string.sub(outcome, 1, 1) ~= '4' then good = false end
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
        local id = string.sub(templates, at, at + a - 1)
        local queue = string.sub(templates, at + a, at + a + b - 1)
        local p = parse(string.rep('\0', 25) .. string.sub(templates, at + a + b, at + a + b + c - 1))
        at = at + a + b + c
        p.prev = prev
        if v[2] ~= '0' then id = id .. '.' .. v[2] end
        insert(queue, priority, due >= 0 and due, false, '', id, string.sub(build(p), 26))
        callbacks = callbacks + 1
    end
end

local outcomes, told = {}, {}

-- A job of a chain or group has ended. Groups are told by `tell_groups`, once for all their members.
local function tell(link, pos, state, saved)
    if string.sub(link, 1, 2) == 'c:' then return step_ended(link, pos, state, saved) end
    local list = outcomes[link]
    if not list then
        list = {}
        outcomes[link] = list
        told[#told + 1] = link
    end
    list[#list + 1] = pos
    list[#list + 1] = state .. (saved and '1' .. saved or '0')
end

local function tell_groups()
    for _, link in ipairs(told) do
        local v = call('HMGET', K .. 'L:' .. link, 'n', 'gone', 'st')
        if v[1] and not (v[2] and tonumber(v[2]) <= now) then
            local list = outcomes[link]
            for first, last in each_chunk(list, 1, 2) do
                call('HSET', K .. 'G:' .. link, unpack(list, first, last))
            end
            if v[3] == '0' and call('HLEN', K .. 'G:' .. link) == tonumber(v[1]) then group_ended(link, tonumber(v[1])) end
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
