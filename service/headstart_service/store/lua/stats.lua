-- Counts the runs of each status whose member name lies in a range, and the jobs not yet delivered.
-- Returns {status, count, status, count, …, expired, waits, queued}: how many have expired since
-- somebody looked, and how many milliseconds the oldest of these jobs has waited; or {expired} alone
-- when more has expired than one call may sweep: ask again.

local now = clock()
local expired = sweep(now)
if expired == SWEEP then
  return {expired}
end
local counts = {}
for status, set in pairs(with_status) do
  counts[#counts + 1] = status
  counts[#counts + 1] = redis.call('ZLEXCOUNT', set, low, high)
end
-- Without a group no worker has come yet.
local info = group_info()
local oldest = redis.call('XRANGE', jobs, info and '(' .. info['last-delivered-id'] or '-', '+', 'COUNT', 1)
counts[#counts + 1] = expired
counts[#counts + 1] = oldest[1] and math.max(0, now / 1000 - string.match(oldest[1][1], '%d+')) or 0
counts[#counts + 1] = info and info.lag or redis.call('XLEN', jobs)
return counts
