-- Let leases end later, or sooner; those that are over and were taken back stay so.
-- include: base clock must waking broker
--
-- ARGV    queue, lease (ms), then spot and id of each
-- result  1
-- cost    one ZADD
local function first_end() return tonumber(call('ZRANGE', LEASED, 0, 0, 'WITHSCORES')[2]) end

local before = first_end()
local over, hold = now + tonumber(ARGV[2]), {}
for i = 3, #ARGV do
    hold[#hold + 1] = over
    hold[#hold + 1] = ARGV[i]
end
for first, last in each_chunk(hold, 1, 2) do call('ZADD', LEASED, 'XX', unpack(hold, first, last)) end
if before and first_end() < before then wake(Q, 1) end -- who sleeps has counted on the later end
return 1
