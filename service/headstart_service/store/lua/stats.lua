-- Counts the runs of each status whose member name lies in a range, and the jobs not yet delivered.
-- Returns {status, count, …, expired, waits, queued, {class, count, …}, {sum, number, …}, open, {member, pending, …}}:
--   expired   runs that this call has forgotten
--   waits     milliseconds that the oldest of these jobs has waited
--   queued    jobs; then how many runs were left for workers of each class, and the ledger's sums of `book`
--   open      runs whose work has no fate yet
--   pending   pending runs of the namespace of this member: of NAMESPACES namespaces at most, by name
-- Returns {expired} alone when more has expired than one call may sweep: call again.

local NAMESPACES = 250

local now = clock()
local expired = sweep(now)
if expired == SWEEP then
  return {expired}
end
local counts = {}
for status, set in pairs(with_status) do
  counts[#counts + 1] = status
  counts[#counts + 1] = redis.call('ZLEXCOUNT', set, low, high)
end
-- Without a group no worker has come yet.
local info = group_info()
local oldest = redis.call('XRANGE', jobs, info and '(' .. info['last-delivered-id'] or '-', '+', 'COUNT', 1)
counts[#counts + 1] = expired
counts[#counts + 1] = oldest[1] and math.max(0, now / 1000 - string.match(oldest[1][1], '%d+')) or 0
local left = {}
local queued = info and info.lag or redis.call('XLEN', jobs)
for _, class in ipairs(redis.call('HKEYS', unserved)) do
  left[#left + 1] = class
  left[#left + 1] = redis.call('ZCARD', unserved_of(class))
  queued = queued + left[#left]
end
counts[#counts + 1] = queued
counts[#counts + 1] = left
local sums, names = {}, {'since', 'starts', 'joined', 'reused', 'hidden_us', 'waited_us', 'llm_calls'}
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
  by_namespace[#by_namespace + 1] = first
  by_namespace[#by_namespace + 1] =
    redis.call('ZLEXCOUNT', with_status.pending, '[' .. namespace .. ':', '(' .. namespace .. ';')
  low = '[' .. namespace .. ';'
end
counts[#counts + 1] = by_namespace
return counts
