-- What every script starts from: the names of the keys.
--
-- KEYS[1]  "{namespace}:", the prefix of every key; the braces keep them all in one slot of a cluster
--
--   r:<id>        string   a job's record (see record.lua); expires by itself once the job has ended
--   q:<queue>     zset     ready: id -> place - priority * 2^44
--   due:<queue>   zset     due later: seq, id -> date
--   pk:<queue>    zset     parked: id -> end of the waiting
--   held          hash     queue -> how many of its jobs are held back by their chains
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
--   chains        zset     a chain's id -> when it was stored, until it is completed or forgotten
--   pos           hash     a chain's id -> the step that it is at, if not the first
--   scheds        hash     schedule -> entry; ticks zset: schedule -> next tick
--   idle:<queue>  zset     engines that found it empty, the longest idle first; expires
--   watch         hash     job or link -> engines that wait for its end; expires
--   e:<engine>    channel  "q<queue>": there may be work; "k<key>": it has ended
local K = KEYS[1]
local R = K .. 'r:'
local call, concat, unpack = redis.call, table.concat, unpack
local spack, sunpack = struct.pack, struct.unpack

local PRIORITY = 17592186044416 -- 2^44: leaves 2^44 places to each of 201 priorities
local CHUNK = 2000 -- arguments of one inner command, at most: the interpreter's stack ends at 8,000

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
