-- Counts the runs of each status whose member name lies in a range, and the jobs not yet delivered.
-- Returns {status, count, status, count, …, queued}, or 0 when more has expired than one call may
-- sweep: ask again.

if sweep(clock()) == SWEEP then
  return 0
end
local counts = {}
for status, set in pairs(with_status) do
  counts[#counts + 1] = status
  counts[#counts + 1] = redis.call('ZLEXCOUNT', set, low, high)
end
-- Without a group no worker has come yet.
local info = group_info()
counts[#counts + 1] = info and info.lag or redis.call('XLEN', jobs)
return counts
