-- Removes a run from every set, with its step runs; its record may be gone already. If the fate of its work was open, it
-- is `fate`.
local function forget(record, member, fate)
  if is_step_run(member) then
    drop_step_run(member)
    remove_step_run(member) -- its record may be gone
    return
  end
  local whole, r = pcall(load, record)
  if whole and r then
    drop_step_runs(member, r.steps)
  end
  settle(member, fate)
  redis.call('UNLINK', record, partials_of(member))
  unqueue(member)
  redis.call('ZREM', expiry, member)
  redis.call('ZREM', unread, member)
  redis.call('ZREM', read, member)
  for _, set in pairs(with_status) do
    redis.call('ZREM', set, member)
  end
  for _, pool in ipairs(pools()) do
    for _, status in ipairs(IN_POOL) do
      redis.call('ZREM', pool_key(pool, status), member)
    end
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

-- Bytes of memory of a record that an announcement carries at most.
local CARRIED = 65536

-- Returns an ended run as an announcement carries it to waiting processes: {"microseconds until it expires,size,size,…",
-- field value field value …}. Returns nil where none waits or it is too large.
local function result_of(record, left_us)
  if not string.find(redis.call('HGET', record, 'to') or '', WAITING)
      or redis.call('MEMORY', 'USAGE', record, 'SAMPLES', 0) > CARRIED then
    return nil
  end
  local sizes, values = {integer(left_us)}, {}
  local fields = redis.call('HGETALL', record)
  for i = 1, #fields, 2 do
    if fields[i] == 'about' or is_step(fields[i]) or is_items(fields[i]) then
      for j = i, i + 1 do
        sizes[#sizes + 1] = #fields[j]
        values[#values + 1] = fields[j]
      end
    end
  end
  return {table.concat(sizes, ','), table.concat(values)}
end

-- Notes that the result of an ended run was read: read results are evicted first.
local function note_seen(record, member, r)
  r.seen = 1
  save(record, member, r)
  redis.call('ZREM', unread, member)
  redis.call('ZADD', read, integer(r.completed), member)
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

-- `reason` is the value of a FailureReason, or '-' for a completed run; `why` is its text.
local function end_run(record, member, r, status, reason, why, ttl_us)
  local now = clock()
  count_ends(now, 1)
  drop_step_runs(member, r.steps)
  redis.call('HDEL', record, 'inputs', 'claim', 'trace', 'fresh', 'since', 'awaited')
  if r.status == 'pending' then
    unqueue(member)
  end
  if status ~= 'completed' then
    stop_steps(record)
  end
  if ENDS[status] then
    settle(member, status)
  end
  become(member, r, status)
  r.completed, r.expires, r.entry, r.reason, r.error = now, now + ttl_us, '-', reason, why
  save(record, member, r)
  redis.call('ZADD', unread, integer(now), member)
  local kind = status == 'cancelled' and 'cancelled' or 'ended'
  if announce(kind, r.run, '-', member, nil, result_of(record, ttl_us)) > 0 then
    note_seen(record, member, r)
    note_read(member, r)
  end
  forget_worker(record)
end

-- Leaves a run, whose job is gone, for workers that offer its class.
local function leave_to_others(record, member, r, score)
  if r.status == 'in_progress' then
    stop_steps(record)
    become(member, r, 'pending')
    announce('released', r.run, '-', member)
  end
  r.entry = '-'
  save(record, member, r)
  set_aside(member, r, score)
end
