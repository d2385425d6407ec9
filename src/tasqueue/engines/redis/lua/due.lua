-- Jobs that are due later.
-- A queue's earliest date, as `dates` has it, is put right.
local function redate(queue)
    local due = call('ZRANGE', K .. 'due:' .. queue, 0, 0, 'WITHSCORES')[2]
    local parked = call('ZRANGE', K .. 'pk:' .. queue, 0, 0, 'WITHSCORES')[2]
    if due or parked then
        local date = math.min(tonumber(due or parked), tonumber(parked or due))
        call('ZADD', K .. 'dates', date, queue)
    else
        call('ZREM', K .. 'dates', queue)
    end
end

-- Its due jobs become ready at new places, in the order of their dates. How many.
local function ripen(queue, limit)
    local key = K .. 'due:' .. queue
    local due = call('ZRANGEBYSCORE', key, '-inf', now, 'LIMIT', 0, limit)
    if #due == 0 then return 0 end
    local place = call('INCRBY', K .. 'seq', #due) - #due
    local ready = spack('<Bd', 1, 0)
    local line, n = {}, 1
    for i, member in ipairs(due) do
        local id = string.sub(member, 17)
        local priority = call('GETRANGE', R .. id, 30, 30)
        if priority ~= '' then
            call('SETRANGE', R .. id, 0, ready)
            line[n] = place + i - sunpack('b', priority) * PRIORITY
            line[n + 1] = id
            n = n + 2
        end
    end
    for first, last in each_chunk(line, 1, 2) do
        call('ZADD', K .. 'q:' .. queue, unpack(line, first, last))
    end
    for first, last in each_chunk(due, 1) do
        call('ZREM', key, unpack(due, first, last))
    end
    redate(queue)
    return #due
end
