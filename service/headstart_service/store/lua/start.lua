-- Decides what a start means, makes room, writes the record, indexes it and queues the job: a run
-- that is kept is queued, and a run that is queued is kept.
-- The argument `steps` is "name=digest" joined by commas.
-- Returns {outcome, status, revision}, or {'full'} when no ended run can make room.

local now = clock()
sweep(record_prefix, now, 100)

local old = redis.call('HMGET', record, 'status', 'digest', 'revision', 'steps', 'expires', 'ttl', 'entry')
local old_status, old_digest, old_revision, old_steps = old[1], old[2], old[3], old[4]
local exists = old_status and tonumber(old[5]) > now

if exists and old_digest == digest and restart == '0' then
  if is_live(old_status) then
    -- Its result lives as long as the most patient of those who asked wants.
    local longest_us = math.max(tonumber(old[6]), tonumber(ttl_us))
    redis.call('HSET', record, 'ttl', integer(longest_us))
    expire_at(record, member, now + math.max(longest_us, tonumber(patience_us)))
    return {'joined', old_status, old_revision}
  end
  if old_status == 'completed' then
    -- Wanted again: it must outlive this wait as a new one would, and not be the first to go.
    expire_at(record, member, math.max(tonumber(old[5]), now + tonumber(ttl_us)))
    announce(channel, 'dropped', old_revision, '-', member)
    redis.call('HSET', record, 'ttl', ttl_us)
    redis.call('HDEL', record, 'read')
    redis.call('ZREM', read, member)
    redis.call('ZADD', unread, integer(now), member)
    return {'reused', old_status, old_revision}
  end
end

if not exists then
  local excess = redis.call('ZCARD', expiry) + 1 - tonumber(max_records)
  if excess > 0 then
    excess = excess - sweep(record_prefix, now, redis.call('ZCARD', expiry))
  end
  for _, set in ipairs({read, unread}) do
    if excess > 0 then
      -- Counted before anything goes, so that a refused start has evicted nothing.
      if set == read and redis.call('ZCARD', read) + redis.call('ZCARD', unread) < excess then
        return {'full'}
      end
      for _, victim in ipairs(redis.call('ZRANGE', set, 0, excess - 1)) do
        forget(record_prefix .. victim, victim)
        announce(channel, 'dropped', 0, '-', victim)
        excess = excess - 1
      end
    end
  end
end

local kept = {}
if exists and restart == '0' then
  local digests = {}
  for name, value in string.gmatch(old_steps, '([^=,]+)=([^,]+)') do
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

local revision = 1
if exists then
  revision = tonumber(old_revision) + 1
end
if exists and old_status == 'in_progress' then
  drop_job(group, old[7])
end
forget(record, member)
local entry = redis.call('XADD', jobs, '*', 'member', member)
redis.call('HSET', record,
  'run', entry, 'entry', entry, 'status', 'pending', 'revision', revision, 'attempt', 0, 'tries', 0,
  'pipeline', pipeline, 'digest', digest, 'steps', steps, 'inputs', inputs, 'ttl', ttl_us,
  'created', integer(now))
for i = 1, #kept, 2 do
  redis.call('HSET', record, kept[i], kept[i + 1])
end
redis.call('ZADD', with_status.pending, 0, member)
expire_at(record, member, now + math.max(tonumber(ttl_us), tonumber(patience_us)))
announce(channel, 'started', revision, '-', member)

local outcome = 'started'
if exists and old_digest ~= digest then
  outcome = 'replaced'
end
return {outcome, 'pending', revision}
