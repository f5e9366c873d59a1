-- Reads a run with every fragment that exists, in one atomic look, and notes that its result was
-- read once it has ended: read results are evicted first. What a caller reads is used: see the ledger.
-- With `waits` 1 its caller waits for it: a run that is pending goes before all for which nobody does.
-- Returns {} for an unknown key, else {microseconds until it expires, field, value, field, value, …}
-- with the record's fields as they are and, of a pending run, `ahead`: how many are before it, and what it `lacks`.
-- Of a record that takes `large` bytes or more its `size` and `about` stand for all fields: its caller reads them by itself.

local r = load(record)
local left = r and r.expires - clock() or 0
if left <= 0 then
  return {}
end
if r.seen == 0 and not is_live(r.status) then
  r.seen = 1
  save(record, member, r)
  redis.call('ZREM', unread, member)
  redis.call('ZADD', read, integer(r.completed), member)
end
note_read(member, r)
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
  if waits == '1' and score >= 0 and score < math.huge then
    redis.call('ZADD', set, integer(place(clock(), -1) - AFTER_ALL), member)
  end
  fields[#fields + 1] = 'ahead'
  fields[#fields + 1] = redis.call('ZRANK', set, member) or 0
  fields[#fields + 1] = 'lacks'
  fields[#fields + 1] = lacks(r, clock()) or ''
end
return fields
