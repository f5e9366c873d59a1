-- Reads a run as read.lua does, but for somebody who only looks on: it does not count as read, and
-- nothing changes; so a damaged record is no error here, which would be counted at every look.
-- With `largest`, the values of the steps' fields have no more than so many bytes in all: the smallest
-- are sent, and of the others the letter of the state alone.
-- Returns 0 for a damaged record, {} for an unknown key, else {microseconds until it expires, the worker that has it or '',
-- attempt, field, value, field, value, …} with the record's line and its steps' fields.

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
local steps, by_size = {}, {}
for _, field in ipairs(redis.call('HKEYS', record)) do
  if field == 'about' then
    reply[4], reply[5] = field, redis.call('HGET', record, field)
  elseif string.sub(field, 1, 2) == 's:' then
    steps[#steps + 1] = {field = field, size = redis.call('HSTRLEN', record, field)}
    by_size[#steps] = steps[#steps]
  end
end
local room = tonumber(largest)
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
  reply[#reply + 1] = step.cut and string.sub(value, 1, 1) or value
end
return reply
