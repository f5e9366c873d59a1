-- What a claim costs its namespace (docs/decisions/0048): the time that runs of its pipeline usually have a slot,
-- divided by the namespace's weight. A ticket notes the charge behind its score; when the job leaves the queue the
-- charge is corrected by the time that the run really had one.

-- The weight of a namespace, by lines "\nnamespace=weight"; '*' is every other one.
local function weight_of(namespace, weights)
  for _, name in ipairs({namespace, '*'}) do
    local _, at = string.find(weights, '\n' .. name .. '=', 1, true)
    local weight = at and tonumber(string.match(weights, '^[%d.]+', at + 1))
    if weight and weight > 0 then
      return weight
    end
  end
  return 1
end

local function note_served(pool, namespace, band, time)
  if redis.call('ZADD', served_of(pool, band), integer(time), namespace) == 1 then
    redis.call('PEXPIRE', served_of(pool, band), SERVED_MS)
  end
end

-- Charges the namespace of a run that a claim takes out of its set; `turn` is its virtual time there. Returns the charge
-- as a ticket notes it: "cost,weight,virtual time", with "/pool" behind it.
local function charge(set, member, score, turn, pool, cost, weights)
  local namespace, band = namespace_of(member), band_of(score)
  local weight = weight_of(namespace, weights)
  cost = math.max(cost > 0 and cost or UNKNOWN_COST, LEAST_COST)
  -- A namespace whose charges were corrected may lie behind the band: it is first now, but once only.
  local from = math.max(virtual_time(pool, band), turn)
  local till = from + math.ceil(cost / weight)
  redis.call('HSET', ledger, time_of(pool, band), integer(from))
  note_served(pool, namespace, band, till)
  redis.call('PEXPIRE', served_of(pool, band), SERVED_MS)
  leave_from(set, member, score)
  for _, other in ipairs(sets_in(pool)) do
    redis.call('ZADD', turns_of(other, band), 'XX', integer(till), namespace)
  end
  return integer(cost) .. ',' .. weight .. ',' .. integer(till) .. (pool and '/' .. pool or '')
end

-- Charges the namespace of a run that stands in no order, because it was set aside for one ticket.
local function charge_aside(member, score, pool, cost, weights)
  local turn = redis.call('ZSCORE', served_of(pool, band_of(score)), namespace_of(member))
  return charge(waiting, member, score, tonumber(turn or 0), pool, cost, weights)
end

-- Corrects the charge of a ticket, by the time `took` that its run had a slot; below 0 since the claim. Without `took`
-- it is not known: then the time since the claim counts, but not more than was charged.
local function correct(ticket, now, took)
  local score, cost, weight, till, pool, since, member =
    string.match(ticket, '^([^ ,]+),(%d+),([%d.]+),(%d+)/?([^, ]*),(%d+) %S+ (.*)$')
  if not score then
    return
  end
  pool = pool ~= '' and pool or nil
  if since == '0' then
    took = 0
  else
    local whole = now - tonumber(since)
    took = took and (took < 0 and whole or took) or math.min(whole, tonumber(cost))
    took = math.max(took, LEAST_COST)
  end
  local by = math.floor((took - tonumber(cost)) / tonumber(weight))
  local namespace, band = namespace_of(member), band_of(tonumber(score))
  local served = tonumber(redis.call('ZSCORE', served_of(pool, band), namespace))
  local past = served or math.min(tonumber(till), virtual_time(pool, band))
  local time = past + by
  for _, set in ipairs(sets_in(pool)) do
    local turn = tonumber(redis.call('ZSCORE', turns_of(set, band), namespace))
    if turn then
      local corrected = turn <= past and time or math.max(turn, time)
      redis.call('ZADD', turns_of(set, band), integer(corrected), namespace)
    end
  end
  if served or time > virtual_time(pool, band) then
    note_served(pool, namespace, band, time)
  end
end

-- Forgets, in the band, namespaces whose virtual time it has passed, at most `most`.
local function forget_served(pool, band, most)
  local time = integer(virtual_time(pool, band))
  local past = redis.call('ZRANGEBYSCORE', served_of(pool, band), '-inf', '(' .. time, 'LIMIT', 0, most)
  if #past > 0 then
    redis.call('ZREM', served_of(pool, band), unpack(past))
  end
end
