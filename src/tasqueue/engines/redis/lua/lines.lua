-- What a script collects, to write and tell it once at its end.
local lines, stirred, redated, holding = {}, {}, {}, {}
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

-- So many more of its jobs are held back, or less.
local function hold(queue, n)
    holding[queue] = (holding[queue] or 0) + n
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
    for queue, n in pairs(holding) do
        if call('HINCRBY', K .. 'held', queue, n) <= 0 then call('HDEL', K .. 'held', queue) end
    end
    lines, holding = {}, {}
end

-- The end of every script that moved jobs: writes the lines and dates, wakes who sleeps.
local function flush()
    settle_lines()
    for queue in pairs(redated) do redate(queue) end
    for queue, n in pairs(stirred) do
        call('SADD', K .. 'queues', queue)
        wake(queue, n)
    end
    redated, stirred = {}, {}
end
