-- Make due jobs, and parked ones whose time is over, ready.
-- include: base clock must waking due lines record
--
-- ARGV    most
-- result  {moved, earliest date or tick that is left or false, now}
-- cost    4 us a job; constant when nothing is due
local left = tonumber(ARGV[1])
for _, queue in ipairs(call('ZRANGEBYSCORE', K .. 'dates', '-inf', now, 'LIMIT', 0, 1000)) do
    if left <= 0 then break end
    local over = call('ZRANGEBYSCORE', K .. 'pk:' .. queue, '-inf', now, 'LIMIT', 0, left)
    for _, id in ipairs(over) do unpark(id) end
    left = left - #over
    if left > 0 then
        local moved = ripen(queue, left)
        stir(queue, moved)
        left = left - moved
    end
    redated[queue] = true
end
flush()
local date = call('ZRANGE', K .. 'dates', 0, 0, 'WITHSCORES')[2]
local tick = call('ZRANGE', K .. 'ticks', 0, 0, 'WITHSCORES')[2]
local earliest = (date or tick) and math.min(tonumber(date or tick), tonumber(tick or date)) or false
return {tonumber(ARGV[1]) - left, earliest, now}
