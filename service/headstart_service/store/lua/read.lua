-- Reads a run with every existing fragment, at one moment. Notes that the result of an ended run was read: read results
-- are evicted first. Steps that a caller reads count as used: see _accounting.lua.
-- A caller waits for the steps `required`, "name,name" or '*' for all; '' where none does: see _settling.lua.
-- With `awaits` above 0 the caller waits for it: a pending run goes before all runs without a waiting caller, unless
-- `by_need` is 0. Announcements of the run are sent to the `process`, of a level from `awaits` on. Those of an ended run
-- are sent to every reader, which keeps what it has read.
-- Returns {} for an unknown key, else {microseconds until it expires, field, value, field, value, …}
-- with the record's fields; for a pending run also `ahead`, the number of runs before it, and what it `lacks`;
-- for steps that wait for a worker of another pool, `lacking`.
-- For a record of `large` bytes or more, its `size` and `about` stand for all fields: the caller reads them separately.

local r = load(record)
local left = r and r.expires - clock() or 0
if left <= 0 then
  return {}
end
if r.seen == 0 and not is_live(r.status) then
  note_seen(record, member, r)
end
note_read(member, r)
ask(record, member, r, required)
local level = is_live(r.status) and tonumber(awaits) or 1
if level > 0 then
  send_to(record, process, level)
end
-- Counted by Redis in a twentieth of the time that reading them takes.
local size = redis.call('MEMORY', 'USAGE', record, 'SAMPLES', 0)
local fields
if size < tonumber(large) then
  fields = redis.call('HGETALL', record)
else
  fields = {'size', size, 'about', redis.call('HGET', record, 'about')}
end
table.insert(fields, 1, left)
if r.status == 'pending' then
  local set, score = standing(member, r)
  if awaits ~= '0' and by_need == '1' and score >= 0 and score < math.huge then
    score = place(clock(), -1) - AFTER_ALL
    move_to(set, member, r, score)
  end
  fields[#fields + 1] = 'ahead'
  fields[#fields + 1] = before(set, member, score)
  fields[#fields + 1] = 'lacks'
  fields[#fields + 1] = lacks(r, clock()) or ''
end
if awaits ~= '0' and by_need == '1' and is_live(r.status) then
  hurry_step_runs(member, r, required)
end
local lacking = lacking_steps(member, r, clock())
if lacking ~= '' then
  fields[#fields + 1] = 'lacking'
  fields[#fields + 1] = lacking
end
return fields
