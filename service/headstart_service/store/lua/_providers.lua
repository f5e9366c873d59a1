-- The state of a provider that all workers share: how fast it may be called, and whether it answers.
--
-- Rates are calls or tokens a second; times are microseconds. `used` is the rate of recent calls, a mean that decays.
-- The rate that the provider allows is learned from its refusals. Before the first refusal it is twice what is used,
-- at least START. Each refusal cuts it; then it grows along a cubic curve (RFC 9438): fast back to `known`, the rate
-- at which the refusal came, slowly around it, and fast beyond it.
local START = 20
local BURST = 10
local MEMORY = 2000000
local LEAST = 0.1
-- The growth after a cut reaches `known` within RETURN.
local RETURN = 8000000
local OPENS_AT = 5
local LONGEST_PAUSE = 300000000
local LONGEST_COOLDOWN = 30000000
local FORGET = 900000
local FIELDS = {
  'used', 'at', 'calls', 'tokens', 'known', 'depth', 'cut_at', 'refusals', 'pause', 'failures', 'open', 'probe_at',
  'waits_at',
}
local TEXTS = {'why', 'probe', 'waits'}

local function load_provider(state, now)
  local s = {}
  for i, value in ipairs(redis.call('HMGET', state, unpack(FIELDS))) do
    s[FIELDS[i]] = tonumber(value or 0) or 0
  end
  for i, value in ipairs(redis.call('HMGET', state, unpack(TEXTS))) do
    s[TEXTS[i]] = value or ''
  end
  -- Times ahead of a clock that was set back.
  for _, name in ipairs({'at', 'cut_at', 'waits_at'}) do
    s[name] = math.min(s[name], now)
  end
  for _, name in ipairs({'pause', 'probe_at'}) do
    s[name] = math.min(s[name], now + LONGEST_PAUSE)
  end
  return s
end

local function save_provider(state, s)
  local values = {}
  for _, name in ipairs(FIELDS) do
    values[#values + 1] = name
    values[#values + 1] = string.format('%.17g', s[name])
  end
  for _, name in ipairs(TEXTS) do
    values[#values + 1] = name
    values[#values + 1] = s[name]
  end
  redis.call('HSET', state, unpack(values))
  redis.call('PEXPIRE', state, FORGET)
end

-- Returns the calls a second that are allowed now. `limit` is the configured one, 0 for none.
local function allowed_rate(s, now, limit)
  local start = limit > 0 and limit or START
  local rate = math.max(start, 2 * s.used)
  if s.known > 0 then
    local past = (now - s.cut_at - RETURN) / RETURN
    local curve = s.known * (1 + s.depth * past * past * past)
    rate = math.min(curve, math.max(s.known, 2 * s.used))
  end
  if limit > 0 then
    rate = math.min(rate, limit)
  end
  return math.max(rate, LEAST)
end

-- Fills the buckets for the time that has passed. Returns the calls a second that are allowed.
local function fill_buckets(s, now, call_limit, token_limit)
  local rate = allowed_rate(s, now, call_limit)
  local burst = math.max(1, math.min(BURST, s.known > 0 and rate / 5 or rate))
  if call_limit > 0 then
    burst = math.max(1, math.min(burst, call_limit))
  end
  -- A bucket that is not known yet is full.
  local passed = s.at > 0 and (now - s.at) / 1000000 or 3600
  local from = math.max(s.at, s.pause)
  local open = s.at > 0 and math.max(0, now - from) / 1000000 or 3600
  s.calls = math.min(burst, s.calls + open * rate)
  s.tokens = token_limit > 0 and math.min(token_limit * 10, s.tokens + passed * token_limit) or 0
  s.used = s.used * math.exp(-math.min(60, passed) * 1000000 / MEMORY)
  s.at = now
  return rate
end

-- Adds to a sum of language models in the ledger, and to that of a namespace if a run makes the calls.
local function count_of_models(namespace, sum, by)
  redis.call('HINCRBY', ledger, '* ' .. sum, by)
  if namespace ~= '' and open_book(namespace) then
    redis.call('HINCRBY', ledger, namespace .. ' ' .. sum, by)
  end
end

-- Counts calls to language models.
local function count_calls(namespace, by)
  count_of_models(namespace, 'llm_calls', by)
end

-- Returns the name of today, in UTC, among the keys of budgets.
local function day_of(now)
  return integer(math.floor(now / 86400000000))
end

-- Opens the breaker, for longer each time.
local function open_breaker(s, now)
  s.open = s.open + 1
  s.probe_at = now + math.min(LONGEST_COOLDOWN, 1000000 * 2 ^ (s.open - 1))
  s.probe = ''
end

-- The calls under way of a namespace that has a budget reserve what each may cost, until they end. What a killed worker
-- had reserved is free again when the namespace has got no permit for as long as a lease.
local function reserved_of(budgets, namespace)
  return budgets .. 'reserved:' .. namespace
end

local function reserved(budgets, namespace)
  return tonumber(redis.call('GET', reserved_of(budgets, namespace)) or 0)
end

local function reserve(budgets, namespace, tokens, lease)
  redis.call('INCRBY', reserved_of(budgets, namespace), integer(tokens))
  redis.call('PEXPIRE', reserved_of(budgets, namespace), integer(math.ceil(lease / 1000)))
end

local function release(budgets, namespace, tokens)
  local left = reserved(budgets, namespace) - tokens
  if left > 0 then
    redis.call('INCRBY', reserved_of(budgets, namespace), integer(-tokens))
  else
    redis.call('UNLINK', reserved_of(budgets, namespace))
  end
end
