-- Put a failed or cancelled job back, if it still is the end of that date; its chain or group reopens.
-- include: base clock waking due lines record links
--
-- ARGV    id, ended at, tail
-- result  1 if it was put back
-- cost    constant
local id = ARGV[1]
local rec = call('GET', R .. id)
if not rec then return 0 end
local p = parse(rec, id)
if p.state ~= 5 and p.state ~= 6 or p.when ~= tonumber(ARGV[2]) then return 0 end
take_out(id, p)
p.state, p.when, p.num, p.tail, p.result, p.progress = 1, 0, 0, ARGV[3], false, ''
p.worker, p.claim, p.claimed, p.extra = '', 0, 0, ''

local key = K .. 'L:' .. p.link
local v = p.link ~= '' and call('HMGET', key, 'st', 'gone') or {false}
if v[1] and v[2] and tonumber(v[2]) <= now then
    forget_link(p.link)
    v[1] = false
end
local ready = true
if v[1] then
    if v[1] ~= '0' then
        call('HSET', key, 'st', 0)
        call('HDEL', key, 'gone')
        call('ZREM', K .. 'lx', p.link)
        call('HINCRBY', key, 'gen', 1)
    end
    if not is_chain(p.link) then
        call('HDEL', K .. 'G:' .. p.link, p.pos)
    else
        local pos = position(p.link)
        mark_next(p.link, 0)
        if p.pos > pos then
            ready = false
            p.state = 0
            hold(p.queue, 1)
            call('SADD', K .. 'queues', p.queue)
            local current = call('HGET', key, 'i' .. pos)
            local other = current and call('GET', R .. current)
            if other and string.byte(other) == 0 then let_go(current, other) end
        end
    end
end
if ready then to_line(p.queue, call('INCR', K .. 'seq') - p.priority * PRIORITY, id) end
call('SET', R .. id, build(p))
flush()
return 1
