-- Reads a run as read.lua does, but for somebody who only looks on: it does not count as read, and
-- nothing changes.
-- Returns {} for an unknown key, else {microseconds until it expires, field, value, field, value, …}
-- with the record's fields as they are, without its inputs.

local r = load(record)
local left = r and r.expires - clock() or 0
if left <= 0 then
  return {}
end
local reply = {left}
local fields = redis.call('HGETALL', record)
for i = 1, #fields, 2 do
  if fields[i] ~= 'inputs' then
    reply[#reply + 1] = fields[i]
    reply[#reply + 1] = fields[i + 1]
  end
end
return reply
