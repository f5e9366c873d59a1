-- Shared by every script and put in front of each, behind the names of its keys and arguments.
-- KEYS always start with the partition's fixed keys, in the order of keys.FIXED.

local jobs, expiry, unread, read = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local with_status = {
  pending = KEYS[5], in_progress = KEYS[6], completed = KEYS[7], failed = KEYS[8], cancelled = KEYS[9],
}

local function integer(number)
  return string.format('%.0f', number)
end

-- Microseconds since the epoch, by this server's clock. A double holds them exactly until 2255.
local function clock()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000000 + tonumber(time[2])
end

local function is_live(status)
  return status == 'pending' or status == 'in_progress'
end

local function announce(channel, kind, revision, steps, member)
  redis.call('PUBLISH', channel, kind .. ' ' .. revision .. ' ' .. steps .. ' ' .. member)
end

-- A record and its place in `expiry` always expire together.
local function expire_at(record, member, at_us)
  redis.call('HSET', record, 'expires', integer(at_us))
  redis.call('PEXPIREAT', record, integer(math.ceil(at_us / 1000)))
  redis.call('ZADD', expiry, integer(at_us), member)
end

local function move(member, from, to)
  redis.call('ZREM', with_status[from], member)
  redis.call('ZADD', with_status[to], 0, member)
end

-- Takes a run out of every set; its record may be gone already.
local function forget(record, member)
  redis.call('UNLINK', record)
  redis.call('ZREM', expiry, member)
  redis.call('ZREM', unread, member)
  redis.call('ZREM', read, member)
  for _, set in pairs(with_status) do
    redis.call('ZREM', set, member)
  end
end

-- Forgets at most `limit` runs that have expired. Returns how many.
local function sweep(record_prefix, now, limit)
  local expired = redis.call('ZRANGEBYSCORE', expiry, '-inf', integer(now), 'LIMIT', 0, limit)
  for _, member in ipairs(expired) do
    forget(record_prefix .. member, member)
  end
  return #expired
end

-- Removes the fields of steps that were running, so that they read as pending again.
local function stop_steps(record)
  local fields = redis.call('HGETALL', record)
  for i = 1, #fields, 2 do
    if string.sub(fields[i], 1, 2) == 's:' and string.sub(fields[i + 1], 1, 1) == 'R' then
      redis.call('HDEL', record, fields[i])
    end
  end
end

local function end_run(record, member, from, status, error, now, ttl_us, channel, revision)
  redis.call('HSET', record, 'status', status, 'completed', integer(now), 'error', error)
  redis.call('HDEL', record, 'inputs', 'entry')
  if status ~= 'completed' then
    stop_steps(record)
  end
  move(member, from, status)
  redis.call('ZADD', unread, integer(now), member)
  expire_at(record, member, now + ttl_us)
  announce(channel, status == 'cancelled' and 'cancelled' or 'ended', revision, '-', member)
end

-- The jobs' consumer group as a table of Redis's own fields, or nil when there is none.
local function group_info(group)
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

-- Takes a delivered job off the queue. Its entry goes when no older one is left, because deleting
-- entries makes the queue's lag unknown, by which workers are scaled; trimming does not. So the job
-- of a run that ended before it was delivered stays, too: the worker that gets it drops it.
local function drop_job(group, entry)
  redis.call('XACK', jobs, group, entry)
  local info = group_info(group)
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
