-- What the scripts of a broker start from, each for one queue, ARGV[1]: its keys, and the places of its messages.
--
-- KEYS[1] is "{namespace}:B:", so nothing here meets a key of the engine.
--
--   m:<queue>     hash     id -> body; a message exists for as long as it is in here, wherever else its id may be left
--   q:<queue>     zset     ready: id -> place - priority * 2^44
--   due:<queue>   zset     due later: spot, id -> date
--   l:<queue>     zset     leased: spot, id -> end of the lease
--   seq           string   the counter of places
--   idle:<queue>  zset     brokers that found it empty, the longest idle first; expires
--   e:<broker>    channel  "q<queue>": there may be work
--
-- A spot is place (16 digits) and priority (4 characters, with its sign): with it a message goes back to its old place.
local Q = ARGV[1]
local BODIES, READY, DUE, LEASED = K .. 'm:' .. Q, K .. 'q:' .. Q, K .. 'due:' .. Q, K .. 'l:' .. Q
local SPOT = 20

local function to_spot(place, priority) return string.format('%016.0f%+04d', place, priority) end

local function spot_of(score)
    local priority = -math.floor(score / PRIORITY)
    return to_spot(score + priority * PRIORITY, priority)
end

local function priority_of(member) return tonumber(string.sub(member, 17, SPOT)) end
local function old_score(member) return tonumber(string.sub(member, 1, 16)) - priority_of(member) * PRIORITY end
local function id_of(member) return string.sub(member, SPOT + 1) end

local line = {}

local function to_line(score, id)
    line[#line + 1] = score
    line[#line + 1] = id
end

-- Writes the line. How many there were in it.
local function settle_line()
    local n = #line / 2
    for first, last in each_chunk(line, 1, 2) do call('ZADD', READY, unpack(line, first, last)) end
    line = {}
    return n
end

-- What was leased and is no longer goes back to its old place; what is due takes a new one. How many.
local function bring_back()
    local over = call('ZRANGEBYSCORE', LEASED, '-inf', now, 'LIMIT', 0, CHUNK)
    for _, member in ipairs(over) do to_line(old_score(member), id_of(member)) end
    if #over > 0 then call('ZREM', LEASED, unpack(over)) end
    local due = call('ZRANGEBYSCORE', DUE, '-inf', now, 'LIMIT', 0, CHUNK)
    if #due > 0 then
        local place = call('INCRBY', K .. 'seq', #due) - #due
        for i, member in ipairs(due) do to_line(place + i - priority_of(member) * PRIORITY, id_of(member)) end
        call('ZREM', DUE, unpack(due))
    end
    return settle_line()
end
