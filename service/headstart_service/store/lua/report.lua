-- Keeps the result of a step that a caller has computed, unless the run no longer wants it. That is so when the run has
-- ended, is another than `run_id`, or is of another class than `runs_class`; when the step has ended; or when a step
-- that it needs (`...`, step names) has no result: then it was made of something that is not kept. Behind a '?' stands
-- a step that it can do without: that one must have ended, or the run does not have it.
-- Returns {1 or 0 (not kept), the step's letter, '' where the run has no such step}, or {} for an
-- unknown key. A repetition finds the step ended, and changes nothing.

local r = load(record)
if not r or r.expires <= clock() then
  return {}
end

if not string.find(',' .. r.steps, ',' .. step .. '=', 1, true) then
  return {0, ''}
end
local state = letter_of(redis.call('HGET', record, step_field(step)))
if r.run ~= run_id or r.revision ~= tonumber(revision) or class_of(r) ~= runs_class or not is_live(r.status)
    or (state ~= LETTER.pending and state ~= LETTER.running) then
  return {0, state}
end
local ready, given, degraded = given_by(record, r, {...})
if not ready then
  return {0, state}
end
local maker = REPORTED
for _, name in ipairs(given) do
  maker = maker .. REPORTED .. name
end
if degraded then
  degrade(r, step)
end
redis.call('HSET', record, step_field(step), value)
drop_items(record, step)
local made, names = made_of(r)
made[step] = maker
r.made = made_text(made, names)
save(record, member, r)
drop_step_run(step_run_of(member, step))
announce('reported', r.run, step, member)
return {1, LETTER.completed}
