-- How the engines that sleep are woken.
local AWAKE = 10 -- sleepers woken by one call, at most; each wakes the next when it leaves something

-- Wakes at most n engines that found this queue empty. One that is gone has no subscription: the next is tried.
local function wake(queue, n)
    n = math.min(n, AWAKE)
    while n > 0 do
        local popped = call('ZPOPMIN', K .. 'idle:' .. queue)
        if not popped[1] then return end
        if call('PUBLISH', K .. 'e:' .. popped[1], 'q' .. queue) > 0 then n = n - 1 end
    end
end
