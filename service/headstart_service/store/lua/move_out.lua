-- Reads all that this partition holds of a run, for a move to another. Forgets an expired or damaged run instead.
-- Returns {score, unread since, read since, its line of `unsettled`, field, value, …}, with '' for a missing value. The
-- score is the run's place in the queue. Returns {1} for a damaged record, and {} for a missing one.

local whole, r = pcall(load, record)
if not whole or not r then
  forget(record, member, 'expired')
  return whole and {} or {1}
end
local score = ''
if is_live(r.status) then
  local ticket = r.status == 'in_progress' and redis.call('HGET', tickets, r.entry)
  local _, standing_at = standing(member, r)
  score = tonumber(ticket and string.match(ticket, TICKET) or standing_at)
  score = integer(score < math.huge and score or place(r.created, -1))
end
local reply = {
  score, redis.call('ZSCORE', unread, member) or '', redis.call('ZSCORE', read, member) or '',
  redis.call('HGET', unsettled, member) or '',
}
for _, text in ipairs(redis.call('HGETALL', record)) do
  reply[#reply + 1] = text
end
return reply
