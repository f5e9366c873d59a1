-- Creates the consumer group, from the first job on, and removes the consumers of workers that went
-- without leaving: nothing is delivered to them, and they have not asked for `idle_ms`.
-- Returns how many it removed. Raises an error for a user who may not announce: other scripts would
-- write first and fail at their announcement.

redis.call('PUBLISH', channel .. ':check', '') -- the same right, and no subscriber

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
