-- Grants permits to call a provider, in the order of the asks, as far as its limits allow. A permit is a lease: it is
-- free again `lease_us` later, even if its worker was killed.
-- Each ask in `...` is: lease, estimated tokens, namespace, the namespace's tokens a day or 0.
-- `calls` and `tokens` are the configured limits a minute, `concurrency` that of calls under way; 0 for none.
-- Returns {answers, wait, why, now, rate, workers, paused, open}:
--   answers  a letter for each ask: g granted, p granted as the probe of an open breaker, b over its budget, w wait
--   wait     microseconds until the first that waits should ask again; 0 when none waits
--   why      what it waits for: paused, open, calls, tokens or concurrency; then a colon and the last bad end
--   rate     thousandths of calls a second
--   workers  how many asked lately
--   paused   microseconds that the pause lasts
--   open     how often the breaker has opened in a row; 0 while it is closed

local RECENT = 60000000
local POLL = 250000
local now = clock()
local s = load_provider(state, now)
local call_limit, token_limit, most = tonumber(calls) / 60, tonumber(tokens) / 60, tonumber(concurrency)
local lease = tonumber(lease_us)
local rate = fill_buckets(s, now, call_limit, token_limit)
redis.call('ZREMRANGEBYSCORE', under_way, '-inf', integer(now))
-- Ten minutes ahead of the longest lease: written before the clock was set back.
redis.call('ZREMRANGEBYSCORE', under_way, integer(now + lease + 600000000), '+inf')
redis.call('ZREMRANGEBYSCORE', askers, '-inf', integer(now - RECENT))
redis.call('ZADD', askers, integer(now), worker)
redis.call('PEXPIRE', askers, RECENT / 1000)
redis.call('ZADD', index, integer(now), name)
redis.call('ZREMRANGEBYSCORE', index, '-inf', integer(now - 86400000000))
redis.call('PEXPIRE', index, 86400000)
local free = most > 0 and most - redis.call('ZCARD', under_way) or math.huge
-- A worker that holds permits asks at once when one is free. So one is kept for the worker that waits longest.
local first = most > 0 and redis.call('ZRANGE', turns, 0, 0)[1]
while first and tonumber(redis.call('ZSCORE', askers, first) or 0) < now - 4 * POLL do
  redis.call('ZREM', turns, first)
  first = redis.call('ZRANGE', turns, 0, 0)[1]
end
local kept = first and first ~= worker and 1 or 0

local asks, answers, why, wait = {...}, {}, '', 0
-- Whether an ask waits until it is known what its namespace's calls under way cost.
local short = false
local day = day_of(now)
for i = 1, #asks, 4 do
  local id, estimate, namespace, budget = asks[i], tonumber(asks[i + 1]), asks[i + 2], tonumber(asks[i + 3])
  local answer = 'w'
  local used = budget > 0 and tonumber(redis.call('GET', budgets .. day .. ':' .. namespace) or 0) or 0
  if budget > 0 and used >= budget then
    answer = 'b'
    redis.call('HSET', over, namespace, day .. ' ' .. integer(budget))
    redis.call('PEXPIRE', over, 172800000)
  elseif budget > 0 and used + reserved(budgets, namespace) >= budget then
    short = true
  elseif why == '' then
    if now < s.pause then
      why, wait = 'paused', s.pause - now
    elseif s.open > 0 then
      if now >= s.probe_at then
        answer, s.probe, s.probe_at = 'p', id, now + lease
      else
        why, wait = 'open', s.probe ~= '' and math.min(1000000, s.probe_at - now) or s.probe_at - now
      end
    elseif s.calls < 1 then
      why, wait = 'calls', (1 - s.calls) / rate * 1000000
    elseif token_limit > 0 and s.tokens <= 0 then
      why, wait = 'tokens', (1 - s.tokens) / token_limit * 1000000
    elseif free - kept < 1 then
      why, wait = 'concurrency', POLL
      redis.call('ZADD', turns, 'NX', integer(now), worker)
      redis.call('PEXPIRE', turns, RECENT / 1000)
    else
      answer = 'g'
    end
  end
  if answer ~= 'b' then
    redis.call('HDEL', over, namespace) -- its budget may have been raised
  end
  if answer == 'g' or answer == 'p' then
    s.calls, s.tokens = s.calls - 1, s.tokens - estimate
    s.used = s.used + 1000000 / MEMORY
    free = free - 1
    if most > 0 then
      redis.call('ZREM', turns, worker)
    end
    redis.call('ZADD', under_way, integer(now + lease), id)
    if budget > 0 then
      reserve(budgets, namespace, estimate, lease)
    end
    count_calls(namespace, 1)
  end
  answers[#answers + 1] = answer
end
if redis.call('PTTL', under_way) < lease / 1000 then
  redis.call('PEXPIRE', under_way, integer(lease / 1000))
end
if why ~= '' then
  s.waits, s.waits_at = why, now
end
save_provider(state, s)
if why == '' and short then
  why, wait = 'tokens', POLL
end
return {
  table.concat(answers), integer(math.ceil(wait)), why .. ':' .. s.why, integer(now), integer(rate * 1000),
  redis.call('ZCARD', askers), integer(math.max(0, s.pause - now)), integer(s.open),
}
