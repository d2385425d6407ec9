-- Note that an engine waits for the end of these, unless one has ended or does not exist.
-- include: base must
--
-- ARGV    engine (hex), ms to remember it, then "j:<id>" or links
-- result  1 if it need not wait
-- cost    constant for each
for i = 3, #ARGV do
    local name = ARGV[i]
    if string.sub(name, 1, 2) == 'j:' then
        local state = call('GETRANGE', R .. string.sub(name, 3), 0, 0)
        if state == '' then return 1 end
        state = string.byte(state)
        if state >= 4 and state <= 6 then return 1 end
    else
        local state = call('HGET', K .. 'L:' .. name, 'st')
        if state ~= '0' then return 1 end
    end
end
for i = 3, #ARGV do
    local engines = call('HGET', K .. 'watch', ARGV[i]) or ''
    if not string.find(engines, ARGV[1], 1, true) then
        call('HSET', K .. 'watch', ARGV[i], engines .. ARGV[1] .. ' ')
    end
end
call('PEXPIRE', K .. 'watch', ARGV[2])
return 0
