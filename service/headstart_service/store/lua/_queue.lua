-- The stream `jobs` holds the tickets of the runs in `waiting`. A claim binds a ticket to a run; `tickets` has the bound
-- ones, as "score run member" or "score,charge,since run member": see _charges.lua; `since` is the time of the claim, 0
-- before it. There are always at least as many unbound tickets as waiting runs; more do no harm. A ticket names the run
-- that brought it, for log lines alone.
local TICKET = '^([^ ,]+)%S* (%S+) (.*)$'

local function ticket_of(score, charged, since, r, member)
  return integer(score) .. ',' .. charged .. ',' .. integer(since) .. ' ' .. r.run .. ' ' .. member
end

local function forget_empty(set, class)
  if redis.call('EXISTS', set) == 0 then
    redis.call('HDEL', unserved, class)
  end
end

local function unqueue(member)
  leave(waiting, member)
  for _, class in ipairs(redis.call('HKEYS', unserved)) do
    local set = unserved_of(class)
    if leave(set, member) then
      forget_empty(set, class)
    end
  end
end

-- Puts a pending run into the set of its class, whose TTL is that of the last of its runs.
local function stand_unserved(set, member, r, score)
  stand(set, member, score)
  local till = integer(math.max(redis.call('PEXPIRETIME', set), math.ceil(r.expires / 1000)))
  redis.call('PEXPIREAT', set, till)
  order_lives(set, till)
end

-- Moves a pending run to another place of its set.
local function move_to(set, member, r, score)
  if set == waiting then
    stand(set, member, score)
  else
    stand_unserved(set, member, r, score)
  end
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

-- Queues a pending run, and returns its job; of runs of the same moment the first comes first. A run of a pool other than
-- the default goes to the queue of its class, where workers take it without a ticket.
local function queue(member, r, score, new)
  if pool_of(class_of(r)) then
    set_aside(member, r, score)
    return '-'
  end
  local entry
  if not new then
    entry = redis.call('XADD', jobs, '*', 'member', member, 'run', r.run)
  else
    entry = redis.call('XADD', jobs, '*', 'member', member)
    score = score + 2 * tonumber(string.match(entry, '%-(%d+)$'))
  end
  stand(waiting, member, score)
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

-- Returns a run of the member's namespace that waits in vain: the last of those that claims have passed over because they
-- could not be ready in time, else one that a claim would pass over now. It compares few runs: late ones stand in front.
local function waits_in_vain(set, member, expected, now, most)
  local namespace = namespace_of(member)
  for _, band in ipairs({2, 1}) do
    local low, high = part_of(namespace, band)
    local found
    if band == 2 then
      found = redis.call('ZREVRANGEBYLEX', order_of(set), high, low, 'LIMIT', 0, most)
    else
      found = redis.call('ZRANGEBYLEX', order_of(set), low, high, 'LIMIT', 0, most)
    end
    for _, entry in ipairs(found) do
      local name = member_of(entry, namespace)
      local score = tonumber(redis.call('ZSCORE', set, name))
      local whole, r = pcall(load, record_prefix .. name)
      if score and whole and r and r.status == 'pending' and not is_step_run(name)
          and (band == 2 or is_late(r, score, expected_of(expected, r.pipeline), now)) then
        return name, r
      end
    end
  end
end

-- Returns the jobs' consumer group as a table of Redis' own fields; nil when there is none.
local function group_info()
  for _, fields in ipairs(redis.pcall('XINFO', 'GROUPS', jobs)) do
    local info = {}
    for i = 1, #fields, 2 do
      info[fields[i]] = fields[i + 1]
    end
    if info.name == group then
      return info
    end
  end
  return nil
end

-- Takes a delivered job off the queue. Its entry is trimmed once no older entry is left. Deleting entries would make
-- the queue's lag unknown, by which workers are scaled; trimming does not. The job of a run that ended before its
-- delivery stays, too: the worker that receives it drops it.
local function drop_job(entry, took)
  redis.pcall('XACK', jobs, group, entry) -- refused, if a damaged record names no entry
  local ticket = redis.call('HGET', tickets, entry)
  if ticket then
    correct(ticket, clock(), took)
  end
  redis.call('HDEL', tickets, entry)
  local info = group_info()
  if not info then
    return
  end
  local oldest
  if info.pending > 0 then
    oldest = redis.call('XPENDING', jobs, group)[2]
  else
    local time, number = string.match(info['last-delivered-id'], '(%d+)-(%d+)')
    oldest = time .. '-' .. integer(tonumber(number) + 1)
  end
  redis.call('XTRIM', jobs, 'MINID', oldest)
end
