-- Decides what a start means, makes room, writes the record, indexes it and queues the job: a run
-- that is kept is queued, and a run that is queued is kept.
-- The argument `steps` is "name=digest" joined by commas.
-- Returns {outcome, status, revision}, or {'full'} when no ended run can make room.

local now, ttl, patience = clock(), tonumber(ttl_us), tonumber(patience_us)
sweep(now)

local whole, old = pcall(load, record)
if not whole then
  if restart == '0' then
    damaged()
  end
  forget(record, member) -- who starts anew wants nothing of what was there
  old = nil
end
if old and old.expires <= now then
  old = nil
end

if old and old.digest == digest and restart == '0' then
  if is_live(old.status) then
    -- Its result lives as long as the most patient of those who asked wants.
    old.ttl = math.max(old.ttl, ttl)
    old.expires = now + math.max(old.ttl, patience)
    save(record, member, old)
    return {'joined', old.status, old.revision}
  end
  if old.status == 'completed' then
    -- Wanted again: it must outlive this wait as a new one would, and not be the first to go.
    old.ttl, old.seen, old.expires = ttl, 0, math.max(old.expires, now + ttl)
    save(record, member, old)
    announce('dropped', old.revision, '-', member)
    redis.call('ZREM', read, member)
    redis.call('ZADD', unread, integer(now), member)
    return {'reused', old.status, old.revision}
  end
end

if not old then
  -- After the limit was lowered there may be many; each start then makes as much room as it may.
  local excess = math.min(redis.call('ZCARD', expiry) + 1 - tonumber(max_records), SWEEP)
  for _, set in ipairs({read, unread}) do
    if excess > 0 then
      -- Counted before anything goes, so that a refused start has evicted nothing.
      if set == read and redis.call('ZCARD', read) + redis.call('ZCARD', unread) < excess then
        return {'full'}
      end
      for _, victim in ipairs(redis.call('ZRANGE', set, 0, excess - 1)) do
        forget(record_prefix .. victim, victim)
        announce('dropped', 0, '-', victim)
        excess = excess - 1
      end
    end
  end
end

local kept = {}
if old and restart == '0' then
  local digests = {}
  for name, value in string.gmatch(old.steps, '([^=,]+)=([^,]+)') do
    digests[name] = value
  end
  for name, value in string.gmatch(steps, '([^=,]+)=([^,]+)') do
    if digests[name] == value then
      local field = redis.call('HGET', record, 's:' .. name)
      if field and string.sub(field, 1, 1) == 'C' then
        kept[#kept + 1] = 's:' .. name
        kept[#kept + 1] = field
      end
    end
  end
end

if old and old.status == 'in_progress' then
  drop_job(old.entry)
end
forget(record, member)
local entry = redis.call('XADD', jobs, '*', 'member', member)
local r = {
  status = 'pending', revision = old and old.revision + 1 or 1, attempt = 0, tries = 0, run = entry,
  entry = entry, ttl = ttl, created = now, started = 0, completed = 0, seen = 0,
  expires = now + math.max(ttl, patience), pipeline = pipeline, digest = digest, steps = steps, error = '',
}
redis.call('HSET', record, 'inputs', inputs, unpack(kept))
save(record, member, r)
redis.call('ZADD', with_status.pending, 0, member)
announce('started', r.revision, '-', member)
return {old and old.digest ~= digest and 'replaced' or 'started', r.status, r.revision}
