-- Notes how a call ended, and frees its permit. `outcome` is:
--   answered  the provider answers; its answer may blame the request
--   refused   it is overloaded, or calls come too fast: all workers pause, for `retry_us` if it asks for that
--   failed    it did not answer, or broke
--   lost      the call was cancelled: nothing is known
--   unused    there was no call
--   charged   there was no permit: only the budget counts the tokens
-- `granted` is when the permit was granted, `estimate` what it reserved, `used` the tokens that the namespace pays for,
-- `cached` those that the provider read from its prompt cache.
-- Returns {paused, open, event, why}: microseconds that the pause lasts, how often the breaker has opened in a row, and
-- what this call has changed: paused, opened, closed, or nothing.

local now, took, retry = clock(), tonumber(granted), tonumber(retry_us)
local s = load_provider(state, now)
local event = ''
local probing = s.probe == lease
local had = redis.call('ZREM', under_way, lease)
if outcome ~= 'charged' then
  s.tokens = s.tokens + tonumber(estimate) - tonumber(used)
  release(budgets, namespace, tonumber(estimate))
end
if outcome == 'unused' then
  s.calls = s.calls + 1
  if had == 1 then
    count_calls(namespace, -1)
  end
end
if tonumber(cached) > 0 then
  count_of_models(namespace, 'llm_cached_tokens', cached)
end
if tonumber(used) > 0 then
  local budget = budgets .. day_of(now) .. ':' .. namespace
  redis.call('INCRBY', budget, used)
  redis.call('PEXPIRE', budget, 172800000)
end
if outcome == 'answered' then
  s.failures = 0
  if took > s.cut_at then
    s.refusals = 0
  end
  if s.open > 0 then
    -- Callers have waited: they go on as slowly as at first.
    event, s.open, s.used, s.calls = 'closed', 0, 0, 0
  end
elseif outcome == 'refused' or outcome == 'failed' then
  s.why = ending
  -- Later answers to calls from before a cut say nothing new.
  local anew = took > s.cut_at
  if outcome == 'refused' then
    if anew then
      s.refusals = s.refusals + 1
      local limit = tonumber(calls) / 60
      -- A first refusal of few calls says little of the rate.
      local least = s.known == 0 and START / 4 or LEAST
      local from = math.min(allowed_rate(s, now, limit), math.max(2 * s.used, least))
      local first = s.known == 0 and limit == 0
      s.depth = (first or s.refusals > 1) and 0.5 or 0.2
      s.known, s.cut_at, s.calls = math.max(LEAST, from * 0.95), now, 0
      if s.refusals > 1 then
        s.known = math.max(LEAST, from * 0.6)
      end
    end
    local pause = math.max(retry, 200000 * 2 ^ math.min(s.refusals - 1, 7))
    pause = now + math.min(LONGEST_PAUSE, pause)
    if pause > s.pause then
      event, s.pause = 'paused', pause
    end
  end
  if anew or outcome == 'failed' then
    s.failures = s.failures + 1
  end
  if probing or s.open == 0 and s.failures >= OPENS_AT then
    event = 'opened'
    open_breaker(s, now)
  end
elseif probing then
  s.probe, s.probe_at = '', now -- another caller probes
end
save_provider(state, s)
return {integer(math.max(0, s.pause - now)), integer(s.open), event, s.why}
