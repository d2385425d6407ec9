-- Renew a lease; write progress notes whose token holds.
-- include: base clock must
--
-- ARGV    worker, lease, info ("": keep it), then id, claim, note of each
-- result  {1 if lost, 1 if asked to drain, {cancel these}, {paused queues}}
-- cost    constant, and 1 us a note
local worker = ARGV[1]
local key, run = K .. 'w:' .. worker, K .. 'run:' .. worker
local paused = call('HKEYS', K .. 'paused')
if call('EXISTS', key) == 0 then return {1, 0, {}, paused} end
call('HSET', key, 'l', ARGV[2])
if ARGV[3] ~= '' then call('HSET', key, 'i', ARGV[3]) end
call('ZADD', K .. 'workers', now + ARGV[2], worker)
for i = 4, #ARGV, 3 do
    local token, claim = call('HGET', run, ARGV[i]), ARGV[i + 1] .. ':'
    if token and string.sub(token, 1, #claim) == claim then
        call('HSET', K .. 'note:' .. worker, ARGV[i], ARGV[i + 2])
    end
end
local cancels = {}
for _, id in ipairs(call('SMEMBERS', K .. 'asked')) do
    if call('HEXISTS', run, id) == 1 then cancels[#cancels + 1] = id end
end
return {0, call('HEXISTS', key, 'd'), cancels, paused}
