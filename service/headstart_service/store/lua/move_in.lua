-- Writes a run that move_out.lua has read in another partition: the same bytes of its record, its place in every set
-- and its line. A run that has not ended is queued in its old place, without a worker: no process of the old layout
-- may write any more.
-- Arguments after the named ones: field, value, field, value, …
-- Returns 1. Repeating it brings another ticket, which does no harm.

redis.call('UNLINK', record)
redis.call('HSET', record, ...)
local r = load(record)
if is_live(r.status) then
  stop_steps(record)
  redis.call('HDEL', record, 'claim')
  r.status = 'pending'
  r.entry = queue(member, r, tonumber(score))
end
save(record, member, r)
redis.call('ZADD', with_status[r.status], 0, member)
enter_pool(member, r)
if unread_since ~= '' then
  redis.call('ZADD', unread, unread_since, member)
end
if read_since ~= '' then
  redis.call('ZADD', read, read_since, member)
end
if line ~= '' then
  open_book(member)
  if redis.call('HSET', unsettled, member, line) == 1 then
    enter(member, {starts = 1})
  end
end
return 1
