#!lua flags=allow-oom
-- Begins or resumes a move to another number of partitions, in one partition. From now on it refuses every process of
-- the old layout. As layout.lua, it is no part of a batch. KEYS: layout, processes.
-- ARGV: the old layout, that of the move, the new one.
-- Returns {'moving'}, {'final'} when this partition has the new layout, {'other', its layout}, or
-- {'live', name, name, …} with the processes that use the store, having changed nothing.

local old, moving, final = ARGV[1], ARGV[2], ARGV[3]
local found = redis.pcall('GET', KEYS[1])
if type(found) ~= 'string' then
  found = old
end
if found == final then
  return {'final'}
elseif found ~= old and found ~= moving then
  return {'other', found}
end
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
-- Ten minutes ahead: written before the clock was set back, by a process that is no longer live.
local first, last = string.format('(%.0f', now), string.format('%.0f', now + 600000000)
local live = redis.call('ZRANGEBYSCORE', KEYS[2], first, last, 'LIMIT', 0, 100)
if #live > 0 then
  return {'live', unpack(live)}
end
redis.call('SET', KEYS[1], moving)
return {'moving'}
