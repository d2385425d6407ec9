-- What every script starts from: the names of the keys, the server's clock, and the places of ready and due jobs.
--
-- KEYS[1]  "{namespace}:", the prefix of every key; the braces keep them all in one slot of a cluster
--
--   r:<id>        string   a job's record (see record.lua); expires by itself once the job has ended
--   q:<queue>     zset     ready: id -> place - priority * 2^44
--   due:<queue>   zset     due later: seq, id -> date
--   held:<queue>  zset     held back by its chain: id -> seq
--   pk:<queue>    zset     parked: id -> end of the waiting
--   queues        set      queues that have one of these four
--   dates         zset     queue -> earliest date of its due and parked jobs
--   parks         set      what parked jobs wait for; pkey:<key> hash: id -> old place
--   seq           string   the counter of submissions, places and ends
--   workers       zset     incarnation -> deadline; w:<id> hash: l lease, i info, n last claim, d drain
--   run:<worker>  hash     what it holds: id -> "claim:claimed at:place:queue", and one that is none; note:<worker> hash: id -> progress
--   asked         set      jobs that somebody asked to cancel while they ran
--   paused        hash     queue -> who, why, when;  tasks  hash  task -> queue
--   x:<state>     stream   the ended, an entry for each batch: how many -> ids; exp zset: state:entry -> expiry
--   n, gaps       hash     how many have ended by state; how many of an entry were deleted or reopened
--   L:<link>      hash     a chain or group; G:<link> hash: index -> outcome; lx zset: link -> expiry
--   scheds        hash     schedule -> entry; ticks zset: schedule -> next tick
--   idle:<queue>  zset     engines that found it empty, the longest idle first; expires
--   watch         hash     job or link -> engines that wait for its end; expires
--   e:<engine>    channel  "q<queue>": there may be work; "k<key>": it has ended
local K = KEYS[1]
local R = K .. 'r:'
local call, concat, unpack = redis.call, table.concat, unpack
local spack, sunpack = struct.pack, struct.unpack

local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local PRIORITY = 17592186044416 -- 2^44: leaves 2^44 places to each of 201 priorities
local CHUNK = 2000 -- arguments of one inner command, at most: the interpreter's stack ends at 8,000
local AWAKE = 10 -- sleepers woken by one call, at most; each wakes the next when it leaves something

local function each_chunk(list, from, step)
    -- iterates over ranges of at most CHUNK elements, `step` belonging together
    local size = CHUNK - CHUNK % (step or 1)
    local first = from - size
    return function()
        first = first + size
        if first <= #list then
            return first, math.min(first + size - 1, #list)
        end
    end
end

-- Wakes at most n engines that found this queue empty. One that is gone has no subscription: the next is tried.
local function wake(queue, n)
    n = math.min(n, AWAKE)
    while n > 0 do
        local popped = call('ZPOPMIN', K .. 'idle:' .. queue)
        if not popped[1] then return end
        if call('PUBLISH', K .. 'e:' .. popped[1], 'q' .. queue) > 0 then n = n - 1 end
    end
end

local lines, stirred, redated, released = {}, {}, {}, {}
local block, ahead = 0, 0

-- How many places this script will ask for: they are counted in one step.
local function reserve(n)
    ahead = n
    block = call('INCRBY', K .. 'seq', n) - n
end

local function next_place()
    if ahead == 0 then return call('INCR', K .. 'seq') end
    ahead = ahead - 1
    block = block + 1
    return block
end

-- No longer held back; noted when the script ends.
local function release(queue, id)
    local list = released[queue]
    if not list then
        list = {}
        released[queue] = list
    end
    list[#list + 1] = id
end

local function to_line(queue, place, id)
    local line = lines[queue]
    if not line then
        line = {}
        lines[queue] = line
    end
    line[#line + 1] = place
    line[#line + 1] = id
end

local function stir(queue, n)
    stirred[queue] = (stirred[queue] or 0) + n
end

local function to_due(queue, date, seq, id)
    call('ZADD', K .. 'due:' .. queue, date, string.format('%016.0f', seq) .. id)
    redated[queue] = true
    stir(queue, 1)
end

local function settle_lines()
    for queue, line in pairs(lines) do
        for first, last in each_chunk(line, 1, 2) do
            call('ZADD', K .. 'q:' .. queue, unpack(line, first, last))
        end
        stir(queue, #line / 2)
    end
    for queue, list in pairs(released) do
        for first, last in each_chunk(list, 1) do
            call('ZREM', K .. 'held:' .. queue, unpack(list, first, last))
        end
    end
    lines, released = {}, {}
end

-- The end of every script that moved jobs: writes the lines and dates, wakes who sleeps.
local function flush()
    settle_lines()
    for queue in pairs(redated) do
        local due = call('ZRANGE', K .. 'due:' .. queue, 0, 0, 'WITHSCORES')[2]
        local parked = call('ZRANGE', K .. 'pk:' .. queue, 0, 0, 'WITHSCORES')[2]
        if due or parked then
            local date = math.min(tonumber(due or parked), tonumber(parked or due))
            call('ZADD', K .. 'dates', date, queue)
        else
            call('ZREM', K .. 'dates', queue)
        end
    end
    for queue, n in pairs(stirred) do
        call('SADD', K .. 'queues', queue)
        wake(queue, n)
    end
    redated, stirred = {}, {}
end

-- A queue's due jobs become ready at new places, in the order of their dates. How many.
local function ripen(queue, limit)
    local key = K .. 'due:' .. queue
    local due = call('ZRANGEBYSCORE', key, '-inf', now, 'LIMIT', 0, limit)
    if #due == 0 then return 0 end
    local place = call('INCRBY', K .. 'seq', #due) - #due
    local ready = spack('<Bd', 1, 0)
    for i, member in ipairs(due) do
        local id = string.sub(member, 17)
        local priority = call('GETRANGE', R .. id, 27, 27)
        if priority ~= '' then
            call('SETRANGE', R .. id, 0, ready)
            to_line(queue, place + i - sunpack('b', priority) * PRIORITY, id)
        end
    end
    for first, last in each_chunk(due, 1) do
        call('ZREM', key, unpack(due, first, last))
    end
    redated[queue] = true
    return #due
end
