-- Keeps the steps that ended, shows the steps that now run and, with an `end_status`, ends the run,
-- takes its job off the queue and starts its TTL. All of it or, when the lease no longer holds, none.
-- Arguments after the named ones: field, value, field, value, …
-- Returns 1, or 0 when the lease no longer holds. Repeating it changes nothing.

local r = redis.call('HMGET', record, 'run', 'attempt', 'status', 'revision', 'ttl')
if r[1] ~= run_id or r[2] ~= attempt then
  return 0
end
if r[3] ~= 'in_progress' then
  -- The answer to the same call was lost, and this is its repetition; or the run was cancelled.
  return (end_status ~= '' and r[3] == end_status) and 1 or 0
end

for i = first_extra, #ARGV, 2 do
  redis.call('HSET', record, ARGV[i], ARGV[i + 1])
end
if end_status == '' then
  announce(channel, 'step', r[4], ended_steps, member)
  return 1
end

local ttl_us = tonumber(r[5])
if end_status == 'failed' then
  ttl_us = tonumber(failure_ttl_us)
end
end_run(record, member, 'in_progress', end_status, error, clock(), ttl_us, channel, r[4])
drop_job(group, entry)
return 1
