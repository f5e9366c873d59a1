-- Reads a run as read.lua does, but for somebody who only looks on: it does not count as read, and
-- nothing changes.
-- Returns {} for an unknown key, else {microseconds until it expires, the worker that has it or '',
-- attempt, field, value, field, value, …} with the record's fields as they are, without its inputs.

local r = load(record)
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
local fields = redis.call('HGETALL', record)
for i = 1, #fields, 2 do
  if fields[i] ~= 'inputs' then
    reply[#reply + 1] = fields[i]
    reply[#reply + 1] = fields[i + 1]
  end
end
return reply
