-- The server's clock, in ms: leases and dates are judged by it alone.
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
