-- Puts every job that was delivered to a worker back into the queue and takes the worker off its
-- group. In one step: removing a consumer also forgets what was delivered to it meanwhile.
-- Returns how many jobs it put back.

local returned = 0
local pending = redis.pcall('XPENDING', jobs, group, '-', '+', 1000, worker)
if pending.err then
  return 0 -- there is no group any more
end
while #pending > 0 do
  for _, delivered in ipairs(pending) do
    local entry = delivered[1]
    local found = redis.call('XRANGE', jobs, entry, entry)
    drop_job(entry)
    if found[1] then
      local fields = found[1][2]
      -- A job that a start queued does not name its run: its own id does.
      redis.call('XADD', jobs, '*', 'member', fields[2], 'run', fields[4] or entry)
      returned = returned + 1
    end
  end
  pending = redis.call('XPENDING', jobs, group, '-', '+', 1000, worker)
end
redis.call('XGROUP', 'DELCONSUMER', jobs, group, worker)
return returned
