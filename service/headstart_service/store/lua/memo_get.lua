-- Reads a memo and notes its use, so that others are removed first.
-- Returns the memo; nil when it is missing or expired; '' for a key of another type.

local found = redis.pcall('GET', entry)
if type(found) == 'table' then -- a key of another type
  redis.call('UNLINK', entry)
  found = ''
end
if found then
  redis.pcall('ZADD', index, 'XX', integer(clock()), name)
else
  redis.pcall('ZREM', index, name)
end
return found
