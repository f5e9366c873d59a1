-- Keeps the result of a step that a caller has computed itself, unless that is no longer wanted: the
-- run has ended, is another by now than `run_id`, or of another class than `runs_class`; the step has ended;
-- or what it needs (`...`, step names) has no
-- result yet, so that this one was made of something that is not kept.
-- Returns {1 or 0 (not kept), the step's letter, '' where the run has no such step}, or {} for an
-- unknown key. A repetition finds the step ended, and changes nothing.

local r = load(record)
if not r or r.expires <= clock() then
  return {}
end

local function letter(name)
  local field = redis.call('HGET', record, 's:' .. name)
  return field and string.sub(field, 1, 1) or 'P'
end

if not string.find(',' .. r.steps, ',' .. step .. '=', 1, true) then
  return {0, ''}
end
local state = letter(step)
if r.run ~= run_id or r.revision ~= tonumber(revision) or class_of(r) ~= runs_class or not is_live(r.status)
    or (state ~= 'P' and state ~= 'R') then
  return {0, state}
end
local maker = REPORTED
for _, need in ipairs({...}) do
  if letter(need) ~= 'C' then
    return {0, state}
  end
  maker = maker .. REPORTED .. need
end
redis.call('HSET', record, 's:' .. step, value)
local made, names = made_of(r)
made[step] = maker
r.made = made_text(made, names)
save(record, member, r)
announce('reported', r.run, step, member)
return {1, 'C'}
