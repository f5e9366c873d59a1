-- Reads a run without a change: the read does not count as one. A damaged record is no error here, because errors are
-- counted, and this script runs again and again.
-- With `largest`, the values of the steps' fields take at most so many bytes: the smallest ones are returned whole, of
-- the others the letter of the state alone, and no items of steps that run.
-- Returns 0 for a damaged record, {} for an unknown key, else {microseconds until it expires, its worker or '', attempt,
-- field, value, …} with the record's line, its steps' fields and items, and what it `lacks` and is `lacking`: see read.lua.

local whole, r = pcall(load, record)
if not whole then
  return 0
end
local left = r and r.expires - clock() or 0
if left <= 0 then
  return {}
end
local owner = ''
if r.status == 'in_progress' then
  local delivered = redis.pcall('XPENDING', jobs, group, r.entry, r.entry, 1)
  owner = delivered[1] and delivered[1][2] or ''
end
local reply = {left, owner, r.attempt}
local steps, by_size, room = {}, {}, tonumber(largest)
for _, field in ipairs(redis.call('HKEYS', record)) do
  if field == 'about' then
    reply[4], reply[5] = field, redis.call('HGET', record, field)
  elseif is_step(field) then
    steps[#steps + 1] = {field = field, size = redis.call('HSTRLEN', record, field)}
    by_size[#by_size + 1] = steps[#steps]
  elseif room == 0 and string.sub(field, 1, #ITEMS_FIELD) == ITEMS_FIELD then
    steps[#steps + 1] = {field = field}
  end
end
if room > 0 then
  table.sort(by_size, function(a, b) return a.size < b.size end)
  for _, step in ipairs(by_size) do
    room = room - step.size
    step.cut = room < 0
  end
end
for _, step in ipairs(steps) do
  local value = redis.call('HGET', record, step.field)
  reply[#reply + 1] = step.field
  reply[#reply + 1] = step.cut and letter_of(value) or value
end
local now = clock()
reply[#reply + 1] = 'lacks'
reply[#reply + 1] = lacks(r, now) or ''
reply[#reply + 1] = 'lacking'
reply[#reply + 1] = lacking_steps(member, r, now)
return reply
