-- Keeps a memo for `ttl_ms`, and removes the least recently used memos above `limit`. The index lives as long as the
-- last of its memos.
-- Returns how many it removed, at most SWEEP; after the limit was lowered, the next calls remove more.

local ttl = tonumber(ttl_ms)
redis.call('SET', entry, value, 'PX', ttl_ms)
if type(redis.pcall('ZADD', index, integer(clock()), name)) == 'table' then -- of another type
  redis.call('UNLINK', index)
  redis.call('ZADD', index, integer(clock()), name)
end
if redis.call('PTTL', index) < ttl then
  redis.call('PEXPIRE', index, ttl_ms)
end
local excess = math.min(redis.call('ZCARD', index) - tonumber(limit), SWEEP)
if excess > 0 then
  for _, victim in ipairs(redis.call('ZRANGE', index, 0, excess - 1)) do
    redis.call('UNLINK', prefix .. victim)
    redis.call('ZREM', index, victim)
  end
end
return math.max(excess, 0)
