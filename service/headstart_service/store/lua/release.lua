-- Hands an unfinished run on: it is pending again under a new job, keeps the steps that have ended,
-- and this try does not count, because nothing went wrong.
-- Returns 1, or 0 when the lease no longer holds.

local r = redis.call('HMGET', record, 'run', 'attempt', 'status', 'tries', 'revision')
if r[1] ~= run_id or r[2] ~= attempt or r[3] ~= 'in_progress' then
  return 0
end
stop_steps(record)
drop_job(group, entry)
local new_entry = redis.call('XADD', jobs, '*', 'member', member, 'run', run_id)
redis.call('HSET', record, 'status', 'pending', 'entry', new_entry, 'tries', tonumber(r[4]) - 1)
move(member, 'in_progress', 'pending')
announce(channel, 'released', r[5], '-', member)
return 1
