-- Keeps the ended steps and shows the running ones. With an `end_status` it ends the run, takes its job off the queue
-- and starts its TTL. When the lease no longer holds, it does nothing.
-- `work` is what the ended steps cost, as note_work takes it; `slot_us` how long the run had a slot, below 0 since its
-- claim.
-- `degraded` are the ended steps, joined by commas, that no later revision may take over.
-- Arguments after the named ones: field, value, field, value, …
-- The step of a step run goes into the record of its run.
-- Returns 1, or 0 when the lease no longer holds. Repeating it changes nothing. It never overwrites a step that a
-- caller has reported: then it keeps nothing and returns these steps' fields, {field, value, …}.

local r = load(record)
if not r and is_step_run(member) and end_status ~= '' then
  -- It was removed: by an earlier try of this call, or because its run no longer wants it.
  local owner, step = owner_of(record)
  local field, value = ...
  return field == step_field(step) and redis.call('HGET', owner, field) == value and 1 or 0
end
if not r or r.run ~= run_id or r.attempt ~= tonumber(attempt) then
  return 0
end
if r.status ~= 'in_progress' then
  -- The answer to the same call was lost, and this is its repetition; or the run was cancelled.
  return (end_status ~= '' and r.status == end_status) and 1 or 0
end

if is_step_run(member) then
  local _, value = ...
  redis.call('HDEL', record, 'claim')
  if end_status ~= '' then
    deliver_step(record, member, r, value or LETTER.failed .. (redis.call('HGET', record, 'lost') or ''), work, tonumber(slot_us))
    return 1
  end
  local name, owner, theirs, step = owner_that_waits(member, record)
  if not name then
    return 0
  end
  redis.call('HSET', record, 'shown', value)
  redis.call('HSET', owner, step_field(step), value)
  announce('step', theirs.run, '-', name)
  return 1
end

local reported = {}
local given = {...}
for i = 1, #given, 2 do
  local old = redis.call('HGET', record, given[i])
  if old and old ~= given[i + 1] and STEP_ENDED[letter_of(old)] then
    reported[#reported + 1] = given[i]
    reported[#reported + 1] = old
  end
end
if #reported > 0 then
  return reported
end

-- A worker that commits has received its claim. Without this field the hash stays a size smaller.
redis.call('HDEL', record, 'claim')
note_work(record, member, r, work)
if select('#', ...) > 0 then
  redis.call('HSET', record, ...)
end
for i = 1, #given, 2 do
  if STEP_ENDED[letter_of(given[i + 1])] and letter_of(given[i + 1]) ~= LETTER.skipped then
    drop_items(record, string.sub(given[i], #STEP_FIELD + 1))
  end
end
if degraded ~= '' then
  degrade(r, degraded)
  save(record, member, r)
end
if end_status == '' then
  announce('step', r.run, ended_steps, member)
  return 1
end

local ttl_us = r.ttl
if end_status == 'failed' then
  ttl_us = tonumber(failure_ttl_us)
end
end_run(record, member, r, end_status, error_reason, error_text, ttl_us)
drop_job(entry, tonumber(slot_us))
return 1
