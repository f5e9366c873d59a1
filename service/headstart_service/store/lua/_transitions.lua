-- Removes a run from every set; its record may be gone already. If the fate of its work was open, it is `fate`.
local function forget(record, member, fate)
  settle(member, fate)
  redis.call('UNLINK', record)
  unqueue(member)
  redis.call('ZREM', expiry, member)
  redis.call('ZREM', unread, member)
  redis.call('ZREM', read, member)
  for _, set in pairs(with_status) do
    redis.call('ZREM', set, member)
  end
end

-- Runs that one call may forget: Redis serves no other client for some 15 ms.
local SWEEP = 1000

-- Forgets expired runs and returns their number; if it is SWEEP there may be more.
local function sweep(now)
  local expired = redis.call('ZRANGEBYSCORE', expiry, '-inf', integer(now), 'LIMIT', 0, SWEEP)
  for _, member in ipairs(expired) do
    forget(record_prefix .. member, member, 'expired')
  end
  return #expired
end

-- Sends no announcement to the run's workers any more.
local function forget_worker(record)
  local to = redis.call('HGET', record, 'to') or ''
  local left = string.gsub(to, ' 0%x+', '')
  if left == '' then
    redis.call('HDEL', record, 'to')
  elseif #left < #to then
    redis.call('HSET', record, 'to', left)
  end
end

local function end_run(record, member, r, status, why, ttl_us)
  local now = clock()
  count_end(now)
  redis.call('HDEL', record, 'inputs', 'claim', 'trace', 'fresh')
  unqueue(member)
  if status ~= 'completed' then
    stop_steps(record)
  end
  if ENDS[status] then
    settle(member, status)
  end
  become(member, r, status)
  r.completed, r.expires, r.entry, r.error = now, now + ttl_us, '-', why
  save(record, member, r)
  redis.call('ZADD', unread, integer(now), member)
  announce(status == 'cancelled' and 'cancelled' or 'ended', r.run, '-', member)
  forget_worker(record)
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
local function drop_job(entry)
  redis.pcall('XACK', jobs, group, entry) -- refused, if a damaged record names no entry
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
