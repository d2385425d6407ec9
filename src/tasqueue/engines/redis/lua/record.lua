-- The record of a job, and the places that it can be taken out of.
--
--   state B  when d  num d  seq d  flags B  #prev I4  priority b  #queue H  version B  pos I4  #result I4
--   #task H  #link H  #worker H  claim I4  claimed d  #extra I4  #spec I4  #tail I4 | parts
--
-- when: its due date, or when it ended. num: its entry among the ended; of one held back 1 when its chain has ended; else
-- when it was first parked. claim and the worker: the token of the last step. flags: 1 prev, 2 result, 4 the link is not
-- written, since the id tells it: <chain>~c<pos>, <group>~g<pos>. Parts: queue, task, link, worker, extra (deaths, what it is
-- parked for), spec, tail, prev, result; what is left is its last progress.
local FORMAT = '<BdddBI4bHBI4I4HHHI4dI4I4I4'
local EXTRA = '<HHHHI4'

-- Without its id, the link of one that does not write it is not known.
local function parse(rec, id)
    local p = {}
    local q, t, l, w, x, s, e, v, r
    p.state, p.when, p.num, p.seq, p.flags, v, p.priority, q, p.version, p.pos, r, t, l, w, p.claim, p.claimed, x, s, e =
        sunpack(FORMAT, rec)
    local at = 73
    local function part(n)
        local from = at
        at = at + n
        return string.sub(rec, from, at - 1)
    end
    p.queue, p.task, p.link, p.worker, p.extra = part(q), part(t), part(l), part(w), part(x)
    p.spec, p.tail, p.prev, p.result = part(s), part(e), part(v), part(r)
    p.progress = string.sub(rec, at)
    p.derived = p.flags >= 4
    if p.flags % 2 == 0 then p.prev = false end
    if p.flags % 4 < 2 then p.result = false end
    if p.derived and id then
        local of, kind = string.match(id, '^(.*)~([cg])%d+$')
        p.link = kind .. ':' .. of
    end
    return p
end

local function build(p)
    local prev, result, link = p.prev or '', p.result or '', p.link
    local flags = (p.prev and 1 or 0) + (p.result and 2 or 0)
    if p.derived then
        flags, link = flags + 4, ''
    end
    return concat({
        spack(FORMAT, p.state, p.when, p.num, p.seq, flags, #prev, p.priority, #p.queue, p.version, p.pos, #result, #p.task,
            #link, #p.worker, p.claim, p.claimed, #p.extra, #p.spec, #p.tail),
        p.queue, p.task, link, p.worker, p.extra, p.spec, p.tail, prev, result, p.progress,
    })
end

-- deaths, and as strings: died with, what it is parked for, why, the cause of the last death
local function read_extra(extra)
    if extra == '' then return 0, '', '', '', '' end
    local deaths, d, k, y, c = sunpack(EXTRA, extra)
    local at = 13
    local parts = {}
    for i, n in ipairs({d, k, y, c}) do
        parts[i] = string.sub(extra, at, at + n - 1)
        at = at + n
    end
    return deaths, parts[1], parts[2], parts[3], parts[4]
end

local function write_extra(deaths, died_with, key, reason, cause)
    if deaths == 0 and key == '' then return '' end
    return spack(EXTRA, deaths, #died_with, #key, #reason, #cause) .. died_with .. key .. reason .. cause
end

-- Who holds a job, and its entry there.
local function holder(id)
    for _, worker in ipairs(call('ZRANGE', K .. 'workers', 0, -1)) do
        local token = call('HGET', K .. 'run:' .. worker, id)
        if token then return worker, token end
    end
end

local function place_of(token)
    return string.match(token, '^%d+:%d+:([^:]+)')
end

local function unlist(queue, id, key)
    call('ZREM', K .. 'pk:' .. queue, id)
    local score = call('HGET', K .. 'pkey:' .. key, id)
    call('HDEL', K .. 'pkey:' .. key, id)
    if call('EXISTS', K .. 'pkey:' .. key) == 0 then call('SREM', K .. 'parks', key) end
    redated[queue] = true
    return score
end

-- Ready at its old place.
local function unpark(id)
    local rec = call('GET', R .. id)
    if not rec then return end
    local p = parse(rec)
    local _, _, key = read_extra(p.extra)
    local place = unlist(p.queue, id, key)
    call('SETRANGE', R .. id, 0, spack('<Bd', 1, 0))
    to_line(p.queue, place, id)
end

-- One of an entry of the ended is no longer there.
local function gap(state, num)
    local key, name = K .. 'x:' .. state, string.format('%d:%.0f', state, num)
    if call('HINCRBY', K .. 'n', state, -1) == 0 then call('HDEL', K .. 'n', state) end
    local entry = call('XRANGE', key, string.format('%.0f', num), string.format('%.0f', num))[1]
    if not entry then return end
    if call('HINCRBY', K .. 'gaps', name, 1) >= tonumber(entry[2][1]) then
        call('XDEL', key, entry[1])
        if call('XLEN', key) == 0 then call('DEL', key) end
        call('HDEL', K .. 'gaps', name)
        call('ZREM', K .. 'exp', name)
    end
end

-- Out of the place that its state names. `keep`: leave a running one where it is; then "held" is returned.
local function take_out(id, p, keep)
    settle_lines()
    if p.state == 1 then
        if call('ZREM', K .. 'q:' .. p.queue, id) == 0 then
            local worker = holder(id)
            if worker then
                if keep then return 'held' end
                call('HDEL', K .. 'run:' .. worker, id)
            end
        end
    elseif p.state == 2 then
        call('ZREM', K .. 'due:' .. p.queue, string.format('%016.0f', p.seq) .. id)
        redated[p.queue] = true
    elseif p.state == 0 then
        hold(p.queue, -1)
    elseif p.state == 7 then
        local _, _, key = read_extra(p.extra)
        unlist(p.queue, id, key)
    else
        gap(p.state, p.num)
    end
end

-- Tells those who watch these: "j:<id>", or a link.
local watched = call('EXISTS', K .. 'watch') == 1
local function ended(name)
    if not watched then return end
    local engines = call('HGET', K .. 'watch', name)
    if not engines then return end
    call('HDEL', K .. 'watch', name)
    for engine in string.gmatch(engines, '%x+') do
        call('PUBLISH', K .. 'e:' .. engine, 'k' .. name)
    end
end

-- As if it had never been.
local function forget(id, p)
    take_out(id, p)
    call('DEL', R .. id)
    call('SREM', K .. 'asked', id)
    ended('j:' .. id)
end

-- Writes down who has ended: `names` are ids, separated by the one byte that none of them has. 500 at most: an entry is read,
-- listed and forgotten as a whole.
local ENTRY = 500
local function note_ended(state, num, n, names, ttl)
    num = string.format('%.0f', num)
    call('XADD', K .. 'x:' .. state, num, n, names)
    call('HINCRBY', K .. 'n', state, n)
    if ttl ~= '' then call('ZADD', K .. 'exp', now + ttl, state .. ':' .. num) end
end
