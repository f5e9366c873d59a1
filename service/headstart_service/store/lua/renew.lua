-- Proves that a worker still works on a run: resets the idle time of its job, after which others
-- may reclaim it, and keeps the record from expiring meanwhile.
-- Returns 1, or 0 when the lease no longer holds.

local r = redis.call('HMGET', record, 'run', 'attempt', 'status', 'ttl')
if r[1] ~= run_id or r[2] ~= attempt or r[3] ~= 'in_progress' then
  return 0
end
redis.call('XCLAIM', jobs, group, worker, 0, entry, 'JUSTID')
expire_at(record, member, clock() + math.max(tonumber(r[4]), tonumber(patience_us)))
return 1
