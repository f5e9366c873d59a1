-- Counts the runs of each status whose member name lies in a range, and the jobs not yet delivered.
-- Returns {status, count, status, count, …, queued}.

while sweep(record_prefix, clock(), 1000) == 1000 do end
local counts = {}
for status, set in pairs(with_status) do
  counts[#counts + 1] = status
  counts[#counts + 1] = redis.call('ZLEXCOUNT', set, low, high)
end
local queued = redis.call('XLEN', jobs)
for _, info in ipairs(redis.pcall('XINFO', 'GROUPS', jobs)) do
  -- {'name', …, 'consumers', …, 'pending', …}: what is delivered and unacknowledged still counts in XLEN.
  queued = queued - info[6]
end
counts[#counts + 1] = queued
return counts
