-- Renews a worker's lease of a run: resets the idle time of its job, after which others may reclaim it, and extends
-- the record's expiry.
-- Returns 1, or 0 when the lease no longer holds.

local r = load(record)
if not r or r.run ~= run_id or r.attempt ~= tonumber(attempt) or r.status ~= 'in_progress' then
  return 0
end
redis.call('XCLAIM', jobs, group, worker, 0, entry, 'JUSTID')
r.expires = clock() + math.max(r.ttl, tonumber(patience_us))
save(record, member, r)
return 1
