-- Reads all that this partition holds of a run, for a move to another. What has expired, or is damaged,
-- is forgotten instead.
-- Returns {score, when it became unread, read, its line of `unsettled`, field, value, …}: the score is the
-- run's place in the queue, and each is '' where there is none. {1} for a damaged record, {} for none.

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
