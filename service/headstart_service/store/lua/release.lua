-- Puts an unfinished run back into its place in the queue under a new job. It keeps the steps that have ended. This
-- try does not count, because nothing failed.
-- Returns 1, or 0 when the lease no longer holds.

local r = load(record)
if not r or r.run ~= run_id or r.attempt ~= tonumber(attempt) or r.status ~= 'in_progress' then
  return 0
end
stop_steps(record)
local ticket = redis.call('HGET', tickets, entry)
local score = ticket and tonumber((string.match(ticket, TICKET))) or place(clock(), -1)
drop_job(entry)
r.entry = queue(member, r, score)
r.tries = r.tries - 1
become(member, r, 'pending')
save(record, member, r)
forget_worker(record)
announce('released', r.run, '-', member)
return 1
