-- Reads a memo and notes that it was used now, so that others go first.
-- Returns it, or nil when there is none, or it has expired, and '' for what is no memo at all.

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
