-- Pending runs stand in `waiting` in the order of their scores, in even microseconds:
--   the time by which the run is needed, by default its start; one more, so odd, if a caller declared the time;
--   below 0 once a caller waits for the run: the time since when, less AFTER_ALL;
--   AFTER_ALL more once the run was passed over, because it could not be ready in time;
--   infinite while the run is set aside for one ticket: its last try, which needs an otherwise idle worker.
-- The stream `jobs` holds their tickets. A claim binds a ticket to a run; `tickets` has the bound ones, as
-- "score run member". There are always at least as many unbound tickets as waiting runs; more do no harm. A ticket
-- names the run that brought it, for log lines alone.
local AFTER_ALL = 2 ^ 52
local ASIDE = 'inf'
local TICKET = '^(%S+) (%S+) (.*)$'

-- The score in `waiting` of a run that is needed `need` microseconds from now; below 0 it is needed at once.
local function place(now, need)
  local declared = need >= 0 and 1 or 0
  local when = now + math.max(need, 0)
  return when - when % 2 + declared
end

-- A worker leaves pending runs of classes that it does not offer in a sorted set of each class, with the scores of
-- `waiting` and without tickets. The hash `unserved` has the classes that have such runs.
local function unserved_of(class)
  return unserved .. ':' .. class
end

local function unqueue(member)
  redis.call('ZREM', waiting, member)
  for _, class in ipairs(redis.call('HKEYS', unserved)) do
    local set = unserved_of(class)
    if redis.call('ZREM', set, member) == 1 and redis.call('EXISTS', set) == 0 then
      redis.call('HDEL', unserved, class)
    end
  end
end

-- Puts a pending run into the set of its class, whose TTL is that of the last of its runs.
local function stand_unserved(set, member, r, score)
  redis.call('ZADD', set, integer(score), member)
  local till = math.max(redis.call('PEXPIRETIME', set), math.ceil(r.expires / 1000))
  redis.call('PEXPIREAT', set, integer(till))
end

-- Leaves a pending run for workers that offer its class.
local function set_aside(member, r, score)
  local class = class_of(r)
  local set = unserved_of(class)
  unqueue(member)
  stand_unserved(set, member, r, score)
  redis.call('HSET', unserved, class, 1)
  announce('unserved', r.run, class, member)
end

-- Returns the set and the score of a pending run; the score is infinite while it is set aside for one ticket.
local function standing(member, r)
  local set = waiting
  local score = redis.call('ZSCORE', set, member)
  if not score then
    set = unserved_of(class_of(r))
    score = redis.call('ZSCORE', set, member)
  end
  return score and set or waiting, tonumber(score or ASIDE)
end

-- Queues a pending run; of runs of the same moment the first comes first.
local function queue(member, run, score)
  local entry
  if run then
    entry = redis.call('XADD', jobs, '*', 'member', member, 'run', run)
  else
    entry = redis.call('XADD', jobs, '*', 'member', member)
    score = score + 2 * tonumber(string.match(entry, '%-(%d+)$'))
  end
  redis.call('ZADD', waiting, integer(score), member)
  return entry
end

-- The share of a declared time by which that time may be too long.
local GUESS = 2 / 5

-- Whether a run that takes `took` microseconds cannot be ready in time, and no caller waits for it. The declared time
-- is a guess: a run that would be ready at the last moment would be late half the time, and waste its worker.
local function is_late(r, score, took, now)
  return score >= 0 and score < AFTER_ALL and score % 2 == 1
    and score - (score - r.created) * GUESS - took < now
end

-- Microseconds that a run of this pipeline takes, from "name=microseconds" joined by commas; 0 if unknown.
local function expected_of(expected, pipeline)
  for name, took in string.gmatch(expected, '([^=,]+)=(%d+)') do
    if name == pipeline then
      return tonumber(took)
    end
  end
  return 0
end
