-- Has a step of another pool computed there: queues its step run, if the run has none of this definition that is whole.
-- The step run takes the place of its run in the queue; with `by_need` it goes first once a caller waits for the run.
-- `needs` are the steps that it needs, joined by commas; `lost` is its report if its workers are lost.
-- Returns 0 when the lease of the run no longer holds, 1 when the step has ended, 2 while the step run is queued or runs.
-- Repeating it prolongs the life of a step run that waits.

local r = load(record)
if not r or r.run ~= run_id or r.attempt ~= tonumber(attempt) or r.status ~= 'in_progress' then
  return 0
end
local value = redis.call('HGET', record, step_field(step))
if STEP_ENDED[letter_of(value)] then
  return 1
end
local now = clock()
local name, definition = step_run_of(member, step), definition_in(r.definition, pools_of_steps(r.steps)[step])
local own = record_prefix .. name
local whole, old = pcall(load, own)
if whole and old and old.definition == definition and old.expires > now and redis.call('HGET', own, 'of') == r.run then
  if old.status == 'pending' then
    local set, present = standing(name, old)
    old.expires = math.max(old.expires, r.expires)
    save(own, name, old)
    if present < math.huge then
      move_to(set, name, old, present)
    end
  elseif not value then
    -- The run was handed on meanwhile.
    local shown = redis.call('HGET', own, 'shown')
    if shown then
      redis.call('HSET', record, step_field(step), shown)
    end
  end
  return 2
end
drop_step_run(name)
local ticket = redis.call('HGET', tickets, r.entry)
local score = ticket and tonumber((string.match(ticket, TICKET))) or place(now, -1)
local waited_for = string.find(redis.call('HGET', record, 'to') or '', WAITING)
  or string.find(redis.call('HGET', record, 'awaited') or '', ALL_STEPS, 1, true)
if by_need == '1' and score >= 0 and waited_for then
  score = place(now, -1) - AFTER_ALL
end
local new = {
  status = 'pending', revision = r.revision, attempt = 0, tries = 0, run = step_run_id, entry = '-', ttl = r.ttl,
  created = r.created, started = 0, completed = 0, seen = 0, expires = r.expires, pipeline = r.pipeline,
  definition = definition, digest = digest, steps = step .. '=' .. digest, made = '-', reason = '-', error = '',
}
redis.call('HSET', own, 'of', r.run, 'needs', needs, 'lost', lost, 'since', integer(now))
new.entry = queue(name, new, score)
save(own, name, new)
redis.call('ZADD', with_status.pending, 0, name)
enter_pool(name, new)
return 2
