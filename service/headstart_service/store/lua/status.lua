-- Reads a run without its fragments.
-- Returns {} for an unknown key, else {microseconds until it expires, field, value, field, value, …}
-- with the record's field `about`, for each step the letter of its state alone, and what the run and its steps of
-- other pools lack.

local r = load(record)
local left = r and r.expires - clock() or 0
if left <= 0 then
  return {}
end
local reply = {left}
local fields = redis.call('HGETALL', record)
for i = 1, #fields, 2 do
  if fields[i] ~= 'inputs' and fields[i] ~= 'to' then
    reply[#reply + 1] = fields[i]
    reply[#reply + 1] = fields[i] == 'about' and fields[i + 1] or letter_of(fields[i + 1])
  end
end
reply[#reply + 1] = 'lacks'
reply[#reply + 1] = lacks(r, clock()) or ''
local lacking = lacking_steps(member, r, clock())
if lacking ~= '' then
  reply[#reply + 1] = 'lacking'
  reply[#reply + 1] = lacking
end
return reply
