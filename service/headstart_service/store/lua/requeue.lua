-- Puts a job that was delivered to a worker, but not claimed by it, back into the queue.
-- Returns 1, or 0 when it is not this worker's any more.

local owner = redis.call('XPENDING', jobs, group, entry, entry, 1)
if #owner == 0 or owner[1][2] ~= worker then
  return 0
end
redis.call('XACK', jobs, group, entry)
redis.call('XDEL', jobs, entry)
redis.call('XADD', jobs, '*', 'member', member, 'run', run_id)
return 1
