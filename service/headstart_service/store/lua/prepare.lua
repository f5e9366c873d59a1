-- Creates the consumer group from the first job on. Removes consumers that hold no job and have not asked for one for
-- `idle_ms`: their workers ended without leaving.
-- Returns how many it removed. Raises an error for a Redis user without the right to publish: other scripts would
-- write first and then fail to publish.

redis.call('SPUBLISH', channel .. ':check', '') -- the same right, and no subscriber

local created = redis.pcall('XGROUP', 'CREATE', jobs, group, '0', 'MKSTREAM')
if created.err and not string.find(created.err, 'BUSYGROUP', 1, true) then
  return created
end
local removed = 0
for _, info in ipairs(redis.call('XINFO', 'CONSUMERS', jobs, group)) do
  -- {'name', …, 'pending', …, 'idle', …}
  if info[4] == 0 and info[6] > tonumber(idle_ms) then
    redis.call('XGROUP', 'DELCONSUMER', jobs, group, info[2])
    removed = removed + 1
  end
end
return removed
