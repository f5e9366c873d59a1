-- Notes what a worker says of itself, for `ttl_us` from now; with 0, forgets it. Forgets, too, those
-- that have been silent for longer than they said they would. The whole list has a TTL of its own, so
-- that nothing of it outlives the last worker.
-- Returns how many workers are known.

-- Ten minutes. What ends later was written before the clock was set back; a worker that lives comes again.
local LONGEST = 600000000
local now, ttl = clock(), tonumber(ttl_us)
local known = redis.call('HGETALL', roster)
for i = 1, #known, 2 do
  local until_us = tonumber(string.match(known[i + 1], '^%d+'))
  if not until_us or until_us <= now or until_us > now + LONGEST then
    redis.call('HDEL', roster, known[i])
  end
end
if ttl > 0 then
  redis.call('HSET', roster, worker, integer(now + ttl) .. ' ' .. about)
  if redis.call('PTTL', roster) < ttl / 1000 then
    redis.call('PEXPIRE', roster, integer(math.ceil(ttl / 1000)))
  end
else
  redis.call('HDEL', roster, worker)
end
return redis.call('HLEN', roster)
