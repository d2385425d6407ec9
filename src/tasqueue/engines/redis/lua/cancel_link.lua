-- Cancel a chain (it ends at once; the step that it is at is cancelled or asked) or a group (each job that has not ended).
-- include: base clock must waking due lines record links
--
-- ARGV    link, ttl or ""
-- result  {groups ended, callbacks, 1 if it was cancelled}
-- cost    6 us a job
local link, ttl = ARGV[1], ARGV[2]
local key = K .. 'L:' .. link
local v = call('HMGET', key, 'st', 'n')
if v[1] ~= '0' then return {0, 0, 0} end
local first, last = 0, tonumber(v[2]) - 1
if is_chain(link) then
    first = position(link)
    last = first
end
local ids = {}
for i = first, last do ids[#ids + 1] = call('HGET', key, 'i' .. i) end
if is_chain(link) then end_link(link, 6) end
for _, id in ipairs(ids) do
    local rec = id and call('GET', R .. id)
    local p = rec and parse(rec, id)
    if p and p.link == link and (p.state < 4 or p.state > 6) then cancel(id, p, ttl) end
end
tell_groups()
flush()
return {groups_ended, callbacks, 1}
