-- Counts the runs of each status whose member name lies in a range, and the jobs not yet delivered.
-- Returns {status, count, status, count, …, queued}.

while sweep(clock(), 1000) == 1000 do end
local counts = {}
for status, set in pairs(with_status) do
  counts[#counts + 1] = status
  counts[#counts + 1] = redis.call('ZLEXCOUNT', set, low, high)
end
-- Without a group no worker has come yet.
local info = group_info()
counts[#counts + 1] = info and info.lag or redis.call('XLEN', jobs)
return counts
