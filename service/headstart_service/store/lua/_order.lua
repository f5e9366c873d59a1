-- The order in which waiting runs are claimed (docs/decisions/0048). A pending run stands in a *set*: `waiting`, or that
-- of its class, with a score in even microseconds:
--   the time by which the run is needed, by default its start; one more, so odd, if a caller declared the time;
--   below 0 once a caller waits for the run: the time since when, less AFTER_ALL;
--   AFTER_ALL more once the run was passed over, because it could not be ready in time;
--   infinite while the run is set aside for one ticket: its last try, which needs an otherwise idle worker.
-- So there are three *bands*: 0 with a waiting caller, 1 by need, 2 too late. The first band that has a run goes first.
-- Within a band, namespaces share the workers by start-time fair queueing: each claim adds its cost, divided by the
-- namespace's weight, to the namespace's virtual time, and the namespace of the least virtual time is next. Within a
-- namespace the least score is first. Beside a set there are
--   <set>:order           "namespace:band time key" of each run with a finite score, in the order of names
--   <set>:turns:<band>    the namespaces that have such runs, each with its virtual time
-- and for all sets together
--   waiting:served:<band> the virtual times of namespaces that were served lately; it has a TTL
-- The band's own virtual time is a field of `ledger`: that of the run claimed last. Pools share nothing: one other than the
-- default has a `served` and a time of its own. A namespace that had no waiting run
-- begins there, so idle time earns no credit.
local AFTER_ALL = 2 ^ 52
local ASIDE = 'inf'
local BANDS = 3
-- The scores where each band begins, and where the last ends.
local LIMITS = {'-inf', 0, integer(AFTER_ALL), 'inf'}
-- Digits of a time in an entry of `order`, and the length of what stands between the namespace and the key.
local TIME = '%016.0f'
local BEFORE_KEY = 18
local VIRTUAL = 'virtual:'
-- Virtual times that nobody has used for so long describe no present load.
local SERVED_MS = 600000
-- Microseconds: what a run costs before any of its pipeline has ended, and what the cheapest one costs.
local UNKNOWN_COST = 1000000
local LEAST_COST = 1000

-- The score in a set of a run that is needed `need` microseconds from now; below 0 it is needed at once.
local function place(now, need)
  local declared = need >= 0 and 1 or 0
  local when = now + math.max(need, 0)
  return when - when % 2 + declared
end

-- The time by which a run of this score is needed, if a caller declared one and none waits; else nil.
local function need_of(score)
  return score and score > 0 and score < math.huge and score % 2 == 1 and score % AFTER_ALL or nil
end

local function band_of(score)
  return score < 0 and 0 or score < AFTER_ALL and 1 or 2
end

-- A worker leaves pending runs of classes that it does not offer in a set of each class, without tickets. The hash
-- `unserved` has the classes that have such runs.
local function unserved_of(class)
  return unserved .. ':' .. class
end

local function all_sets()
  local sets = {waiting}
  for _, class in ipairs(redis.call('HKEYS', unserved)) do
    sets[#sets + 1] = unserved_of(class)
  end
  return sets
end

local function sets_in(pool)
  local sets = {}
  for _, set in ipairs(all_sets()) do
    if pool_of(set) == pool then
      sets[#sets + 1] = set
    end
  end
  return sets
end

local function namespace_of(member)
  return string.match(member, '^[^:]*')
end

local function order_of(set)
  return set .. ':order'
end

local function turns_of(set, band)
  return set .. ':turns:' .. band
end

local function served_of(pool, band)
  return (pool and pool_key(pool, 'served:') or waiting .. ':served:') .. band
end

local function time_of(pool, band)
  return VIRTUAL .. band .. (pool and '/' .. pool or '')
end

-- The part of `order` that a namespace has in a band, as the limits of ZRANGEBYLEX.
local function part_of(namespace, band)
  return '[' .. namespace .. ':' .. band, '(' .. namespace .. ':' .. (band + 1)
end

-- Returns a run's entry in `order`, its namespace and its band.
local function entry_of(member, score)
  local namespace, band = namespace_of(member), band_of(score)
  local time = score + (1 - band) * AFTER_ALL
  local key = string.sub(member, #namespace + 2)
  return namespace .. ':' .. band .. string.format(TIME, time) .. key, namespace, band
end

local function member_of(entry, namespace)
  return namespace .. ':' .. string.sub(entry, #namespace + BEFORE_KEY + 1)
end

local function time_in(entry, namespace)
  return string.sub(entry, #namespace + 3, #namespace + BEFORE_KEY)
end

-- The band's virtual time. Where that is lost, it is the least of the namespaces that wait.
local function virtual_time(pool, band)
  local noted = redis.call('HGET', ledger, time_of(pool, band))
  if not noted and not pool then
    noted = redis.call('ZRANGE', turns_of(waiting, band), 0, 0, 'WITHSCORES')[2]
  end
  return tonumber(noted or 0)
end

-- Removes a run, whose score is known, from the set where it stands.
local function leave_from(set, member, score)
  redis.call('ZREM', set, member)
  if score < math.huge then
    local entry, namespace, band = entry_of(member, score)
    redis.call('ZREM', order_of(set), entry)
    local low, high = part_of(namespace, band)
    if #redis.call('ZRANGEBYLEX', order_of(set), low, high, 'LIMIT', 0, 1) == 0 then
      redis.call('ZREM', turns_of(set, band), namespace)
    end
  end
end

-- Removes a run from a set. Returns whether it was there.
local function leave(set, member)
  local score = tonumber(redis.call('ZSCORE', set, member))
  if score then
    leave_from(set, member, score)
  end
  return score ~= nil
end

-- Lets the order of a set of a class live until `till`, at least.
local function order_lives(set, till)
  redis.call('PEXPIREAT', order_of(set), till)
  for band = 0, BANDS - 1 do
    redis.call('PEXPIREAT', turns_of(set, band), till)
  end
end

-- Adds what a run of a set lacks in `order` and `turns`. Returns 1 if anything was missing.
local function complete(set, member, score)
  local entry, namespace, band = entry_of(member, score)
  local added = redis.call('ZADD', order_of(set), 0, entry)
  if not redis.call('ZSCORE', turns_of(set, band), namespace) then
    local pool = pool_of(set)
    local served = tonumber(redis.call('ZSCORE', served_of(pool, band), namespace) or 0)
    redis.call('ZADD', turns_of(set, band), integer(math.max(virtual_time(pool, band), served)), namespace)
    added = 1
  end
  local till = added == 1 and set ~= waiting and redis.call('PEXPIRETIME', set) or 0
  if till > 0 then
    order_lives(set, till)
  end
  return added
end

-- Puts a run into a set, or moves it there.
local function stand(set, member, score)
  if redis.call('ZADD', set, 'NX', integer(score), member) == 0 then
    leave(set, member)
    redis.call('ZADD', set, integer(score), member)
  end
  if score < math.huge then
    complete(set, member, score)
  end
end

-- Returns the entry that is first of a set in a band, its namespace and that namespace's virtual time.
local function first_entry(set, band)
  while true do
    local namespace, time = unpack(redis.call('ZRANGE', turns_of(set, band), 0, 0, 'WITHSCORES'))
    if not namespace then
      return nil
    end
    local low, high = part_of(namespace, band)
    local entry = redis.call('ZRANGEBYLEX', order_of(set), low, high, 'LIMIT', 0, 1)[1]
    if entry then
      return entry, namespace, tonumber(time)
    end
    redis.call('ZREM', turns_of(set, band), namespace) -- another program has changed the set
  end
end

-- Whether a set's runs and its order disagree: another program, or an eviction, has changed one. It compares their
-- numbers, and some runs.
local function is_disordered(set)
  if redis.call('ZCARD', order_of(set)) ~= redis.call('ZCOUNT', set, '-inf', '(inf') then
    return true
  end
  for _, member in ipairs(redis.call('ZRANDMEMBER', set, 10)) do
    local score = tonumber(redis.call('ZSCORE', set, member))
    local entry, namespace, band = entry_of(member, score)
    if score < math.huge and not (redis.call('ZSCORE', order_of(set), entry)
        and redis.call('ZSCORE', turns_of(set, band), namespace)) then
      return true
    end
  end
  return false
end

-- Returns the run of these sets that is to be claimed first, its score, its set and its namespace's virtual time there.
-- Between pools, it compares how far each namespace is ahead of its pool.
local function first_of(sets)
  local band = 0
  while band < BANDS do
    local entry, least, namespace, from, turn
    for _, set in ipairs(sets) do
      local candidate, owner, time = first_entry(set, band)
      local ahead = candidate and #sets > 1 and time - virtual_time(pool_of(set), band) or 0
      if candidate and (not entry or ahead < least
          or ahead == least and time_in(candidate, owner) < time_in(entry, namespace)) then
        entry, least, namespace, from, turn = candidate, ahead, owner, set, time
      end
    end
    if not entry then
      band = band + 1
    else
      local member = member_of(entry, namespace)
      local score = tonumber(redis.call('ZSCORE', from, member))
      if score and entry_of(member, score) == entry then
        return member, score, from, turn
      end
      redis.call('ZREM', order_of(from), entry) -- another program has changed the set
      if score and score < math.huge then
        complete(from, member, score)
        band = 0
      end
    end
  end
end

-- Estimates how many runs of a set are claimed before this one, as if all cost the same and all weights were 1.
local function before(set, member, score)
  if score == math.huge then
    return 0
  end
  local entry, namespace, band = entry_of(member, score)
  local low, high = part_of(namespace, band)
  local earlier = band == 0 and 0 or redis.call('ZCOUNT', set, '-inf', '(' .. LIMITS[band + 1])
  local all = redis.call('ZCOUNT', set, LIMITS[band + 1], '(' .. LIMITS[band + 2])
  local own = redis.call('ZLEXCOUNT', order_of(set), low, '(' .. entry)
  local others = all - redis.call('ZLEXCOUNT', order_of(set), low, high)
  local turns = turns_of(set, band)
  local theirs = own * (redis.call('ZCARD', turns) - 1) + (redis.call('ZRANK', turns, namespace) or 0)
  return earlier + own + math.max(0, math.min(others, theirs))
end
