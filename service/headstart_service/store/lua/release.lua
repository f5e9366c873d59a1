-- Hands an unfinished run on: it is pending again under a new job, keeps the steps that have ended,
-- and this try does not count, because nothing went wrong.
-- Returns 1, or 0 when the lease no longer holds.

local r = load(record)
if not r or r.run ~= run_id or r.attempt ~= tonumber(attempt) or r.status ~= 'in_progress' then
  return 0
end
stop_steps(record)
drop_job(entry)
r.entry = redis.call('XADD', jobs, '*', 'member', member, 'run', run_id)
r.tries = r.tries - 1
become(member, r, 'pending')
save(record, member, r)
announce('released', r.revision, '-', member)
return 1
