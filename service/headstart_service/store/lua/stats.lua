-- Counts the runs of each status whose member name lies in a range, and the jobs not yet delivered.
-- Returns {status, count, …, expired, waits, queued, {class, count, …}, {pool, queued, running, workers, waited, …},
-- {sum, number, …}, open, {member, pending, …}, step runs}:
--   expired   runs that this call has forgotten
--   waits     milliseconds that the oldest of these jobs has waited
--   queued    jobs; then the queued runs of each class that no worker offers; then the queued and running runs of each
--             pool, the workers that serve it, and the microseconds that its longest waiting run has waited; then the
--             ledger's sums of `book`
--   open      runs whose work has no fate yet
--   step runs those that are pending and those in progress, in this range
--   pending   pending runs of the namespace of this member: of NAMESPACES namespaces at most, by name
-- Returns {expired} alone when more has expired than one call may sweep: call again.

local NAMESPACES = 250
-- Runs of a set that are compared for the longest wait, of each band: the first ones. Only step runs among them are read.
local COMPARED = 4

-- Microseconds that a run of a set has waited at most: since its place in the order, or since it was queued as a step run.
local function longest_wait(set, now)
  local longest = 0
  for band = 0, BANDS - 1 do
    local found = redis.call('ZRANGEBYSCORE', set, band == 0 and LIMITS[1] or LIMITS[band + 1],
      '(' .. LIMITS[band + 2], 'WITHSCORES', 'LIMIT', 0, COMPARED)
    for i = 1, #found, 2 do
      local since = is_step_run(found[i]) and redis.call('HGET', record_prefix .. found[i], 'since')
      since = tonumber(since or nil) or tonumber(found[i + 1]) + (1 - band) * AFTER_ALL
      longest = math.max(longest, now - since)
    end
  end
  return longest
end

local now = clock()
local expired = sweep(now)
if expired == SWEEP then
  return {expired}
end
local counts = {}
local live_step_runs = {step_runs_in('pending', low, high), step_runs_in('in_progress', low, high)}
for status, set in pairs(with_status) do
  counts[#counts + 1] = status
  counts[#counts + 1] = redis.call('ZLEXCOUNT', set, low, high) - (is_live(status) and step_runs_in(status, low, high) or 0)
end
-- Without a group no worker has come yet.
local info = group_info()
local oldest = redis.call('XRANGE', jobs, info and '(' .. info['last-delivered-id'] or '-', '+', 'COUNT', 1)
counts[#counts + 1] = expired
counts[#counts + 1] = oldest[1] and math.max(0, now / 1000 - string.match(oldest[1][1], '%d+')) or 0
local left, offered, in_pool = {}, {}, {}
local function figures_of(pool)
  pool = pool or 'default'
  in_pool[pool] = in_pool[pool] or {queued = 0, running = 0, workers = 0, waited = 0}
  return in_pool[pool]
end
local known = redis.call('HGETALL', offers)
for i = 1, #known, 2 do
  local till, text = string.match(known[i + 1], '^(%d+) (.*)$')
  if known[i] ~= EVERY and till and tonumber(till) > now then
    local served = {}
    for class in string.gmatch(text, '(%S+) %S+') do
      offered[class] = true
      served[pool_of(class) or 'default'] = true
    end
    for pool in pairs(served) do
      figures_of(pool).workers = figures_of(pool).workers + 1
    end
  end
end
local queued = info and info.lag or redis.call('XLEN', jobs)
figures_of(nil).queued = queued
figures_of(nil).running = redis.call('ZCARD', with_status.in_progress)
figures_of(nil).waited = longest_wait(waiting, now)
for _, class in ipairs(redis.call('HKEYS', unserved)) do
  local number = redis.call('ZCARD', unserved_of(class))
  local pool = figures_of(pool_of(class))
  pool.queued = pool.queued + number
  queued = queued + number
  if offered[class] or pool.workers == 0 then
    pool.waited = math.max(pool.waited, longest_wait(unserved_of(class), now))
  end
  if not offered[class] then
    left[#left + 1] = class
    left[#left + 1] = number
  end
end
for _, pool in ipairs(pools()) do
  figures_of(pool).running = redis.call('ZCARD', pool_key(pool, 'in_progress'))
  figures_of(nil).running = figures_of(nil).running - figures_of(pool).running
end
local flat = {}
for pool, figures in pairs(in_pool) do
  for _, value in ipairs({pool, figures.queued, figures.running, figures.workers, figures.waited}) do
    flat[#flat + 1] = value
  end
end
counts[#counts + 1] = queued
counts[#counts + 1] = left
counts[#counts + 1] = flat
local sums, names = {}, {'since', 'starts', 'joined', 'reused', 'hidden_us', 'waited_us', 'llm_calls', 'llm_cached_tokens'}
for _, fate in ipairs({'used_ready', 'used_waited', 'expired', 'evicted', 'cancelled', 'replaced', 'failed'}) do
  for _, sum in ipairs({'runs', 'steps', 'compute_us', 'cpu_us', 'llm_tokens'}) do
    names[#names + 1] = fate .. '.' .. sum
  end
end
for pipeline in string.gmatch(redis.call('HGET', ledger, book .. ' pipelines') or '', '%S+') do
  names[#names + 1] = 'hidden_us/' .. pipeline
  names[#names + 1] = 'hidden_runs/' .. pipeline
end
for _, name in ipairs(names) do
  local number = redis.call('HGET', ledger, book .. ' ' .. name)
  if number then
    sums[#sums + 1] = name
    sums[#sums + 1] = number
  end
end
counts[#counts + 1] = sums
counts[#counts + 1] = redis.call('HLEN', unsettled)
local by_namespace = {}
for _ = 1, NAMESPACES do
  local first = redis.call('ZRANGEBYLEX', with_status.pending, low, high, 'LIMIT', 0, 1)[1]
  if not first then
    break
  end
  -- A semicolon follows the colon that ends the name.
  local namespace = string.match(first, '^[^:]*')
  local from, till = '[' .. namespace .. ':', '(' .. namespace .. ';'
  by_namespace[#by_namespace + 1] = owner_of(first) or first
  by_namespace[#by_namespace + 1] =
    redis.call('ZLEXCOUNT', with_status.pending, from, till) - step_runs_in('pending', from, till)
  low = '[' .. namespace .. ';'
end
counts[#counts + 1] = by_namespace
counts[#counts + 1] = live_step_runs
return counts
