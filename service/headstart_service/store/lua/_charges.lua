-- What a claim costs its namespace (docs/decisions/0048): the time that runs of its pipeline usually take, divided by
-- the namespace's weight. A ticket notes the charge behind its score; when the job leaves the queue the charge is
-- corrected by the time that the run really took.

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

-- Moves a namespace's virtual time in every set where it has waiting runs.
local function set_turns(namespace, band, time_of)
  for _, set in ipairs(all_sets()) do
    local turn = tonumber(redis.call('ZSCORE', turns_of(set, band), namespace))
    if turn then
      redis.call('ZADD', turns_of(set, band), integer(time_of(turn)), namespace)
    end
  end
end

local function note_served(namespace, band, time)
  redis.call('ZADD', served_of(band), integer(time), namespace)
  redis.call('PEXPIRE', served_of(band), SERVED_MS)
end

-- Charges the namespace of a run that is claimed from a set, while the run still stands there. Returns the charge as a
-- ticket notes it: "cost,weight,virtual time".
local function charge(set, member, score, cost, weights)
  local namespace, band = namespace_of(member), band_of(score)
  local weight = weight_of(namespace, weights)
  cost = math.max(cost > 0 and cost or UNKNOWN_COST, LEAST_COST)
  local turn = redis.call('ZSCORE', turns_of(set, band), namespace)
    or redis.call('ZSCORE', served_of(band), namespace) or 0
  -- A namespace whose charges were corrected may lie behind the band: it is first now, but once only.
  local from = math.max(virtual_time(band), tonumber(turn))
  local till = from + math.ceil(cost / weight)
  redis.call('HSET', ledger, VIRTUAL .. band, integer(from))
  note_served(namespace, band, till)
  set_turns(namespace, band, function() return till end)
  local past = redis.call('ZRANGEBYSCORE', served_of(band), '-inf', '(' .. integer(from), 'LIMIT', 0, PAST)
  if #past > 0 then
    redis.call('ZREM', served_of(band), unpack(past))
  end
  return integer(cost) .. ',' .. weight .. ',' .. integer(till)
end

-- Corrects the charge of a ticket, by the time from its claim until now.
local function correct(ticket, now)
  local score, cost, weight, till, since, member =
    string.match(ticket, '^([^ ,]+),(%d+),([%d.]+),(%d+),(%d+) %S+ (.*)$')
  if not score then
    return
  end
  local took = since ~= '0' and math.max(now - tonumber(since), LEAST_COST) or 0
  local by = math.floor((took - tonumber(cost)) / tonumber(weight))
  local namespace, band = namespace_of(member), band_of(tonumber(score))
  local served = tonumber(redis.call('ZSCORE', served_of(band), namespace))
  local past = served or math.min(tonumber(till), virtual_time(band))
  local time = past + by
  set_turns(namespace, band, function(turn)
    return turn <= past and time or math.max(turn, time)
  end)
  if served or time > virtual_time(band) then
    note_served(namespace, band, time)
  end
end
