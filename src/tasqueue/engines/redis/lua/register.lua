-- Begin or renew an incarnation, announce its tasks, free what is parked for them.
-- include: base clock must waking due lines record
--
-- ARGV    worker, lease, info, version, then task, queue of each
-- result  1
-- cost    constant, and 5 us for each job that is freed
local worker, version = ARGV[1], tonumber(ARGV[4])
local key = K .. 'w:' .. worker
call('HSET', key, 'l', ARGV[2], 'i', ARGV[3])
call('HSETNX', key, 'n', 0)
-- One long value, under a name that is no id: as a packed list the hash would be searched from end to end for each job.
call('HSETNX', K .. 'run:' .. worker, '', string.rep('-', 100))
call('ZADD', K .. 'workers', now + ARGV[2], worker)
local known = {}
for i = 5, #ARGV, 2 do
    known[ARGV[i]] = true
    call('HSET', K .. 'tasks', ARGV[i], ARGV[i + 1])
end
for _, what in ipairs(call('SMEMBERS', K .. 'parks')) do
    local colon = string.find(what, ':', 1, true) or #what
    local kind, name = string.sub(what, 1, colon - 1), string.sub(what, colon + 1)
    local n = string.find(name, '^%d+$') and tonumber(name)
    if kind == 'task' and known[name] or kind == 'version' and n and n <= version then
        for _, id in ipairs(call('HKEYS', K .. 'pkey:' .. what)) do unpark(id) end
    end
end
flush()
return 1
