-- Reads what is known of the providers that were called lately, and whose budgets are used up. `states` is the prefix of
-- their states. Returns {{name, paused, open, last bad end, what callers wait for, rate}, …}, {namespace, budget, …}:
--   paused  microseconds that the pause lasts
--   open    how often the breaker has opened in a row; 0 while it is closed
--   rate    thousandths of calls a second that are allowed, without a configured limit; 0 before the first refusal

local LATELY = 10000000
local now = clock()
local found, spent = {}, {}
for _, name in ipairs(redis.call('ZRANGEBYSCORE', index, integer(now - 900000000), '+inf', 'LIMIT', 0, 100)) do
  local s = load_provider(states .. name, now)
  local why = now - s.waits_at < LATELY and s.waits or ''
  local rate = s.known > 0 and allowed_rate(s, now, 0) or 0
  found[#found + 1] = {
    name, integer(math.max(0, s.pause - now)), integer(s.open), s.why, why, integer(rate * 1000),
  }
end
local day, all = day_of(now), redis.call('HGETALL', over)
for i = 1, #all, 2 do
  local last, budget = string.match(all[i + 1], '^(%d+) (%d+)$')
  if last == day then
    spent[#spent + 1] = all[i]
    spent[#spent + 1] = budget
  end
end
return {found, spent}
