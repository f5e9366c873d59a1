-- Registers a worker's description for `ttl_us` from now; with 0, removes it. Removes overdue workers, too. The list
-- has a TTL, so that it ends with the last worker.
-- Returns how many workers are known.

-- Ten minutes. Later ends were written before the clock was set back; a live worker registers again.
local LONGEST = 600000000
local now, ttl = clock(), tonumber(ttl_us)
local known = redis.call('HGETALL', registry)
for i = 1, #known, 2 do
  local until_us = tonumber(string.match(known[i + 1], '^%d+'))
  if not until_us or until_us <= now or until_us > now + LONGEST then
    redis.call('HDEL', registry, known[i])
  end
end
if ttl > 0 then
  redis.call('HSET', registry, worker, integer(now + ttl) .. ' ' .. about)
  if redis.call('PTTL', registry) < ttl / 1000 then
    redis.call('PEXPIRE', registry, integer(math.ceil(ttl / 1000)))
  end
else
  redis.call('HDEL', registry, worker)
end
return redis.call('HLEN', registry)
