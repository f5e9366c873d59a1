-- Ends a worker's offers, requeues every job that was delivered to it, and removes it from its group. All in one step:
-- removing a consumer also forgets jobs that were delivered to it meanwhile.
-- Returns how many jobs it put back.

-- Leaves the run of a job to workers of its pool: they need no job, and may be the only ones. Returns whether it has one.
local function leave_to_pool(ticket, old)
  local score, _, name = string.match(ticket or '', TICKET)
  local whole, r = pcall(load, record_prefix .. (name or ''))
  if not (whole and r and pool_of(class_of(r)))
      or not (r.entry == old or r.status == 'pending' and redis.call('ZSCORE', waiting, name) == ASIDE) then
    return false
  end
  leave_to_others(record_prefix .. name, name, r, tonumber(score))
  return true
end

-- Binds the run of one job to the other job.
local function hand_on(ticket, old, new)
  -- Its charge was corrected with the old job; the next claim charges anew.
  redis.call('HSET', tickets, new, (string.gsub(ticket, '^([^ ,]+)%S*', '%1')))
  local _, _, member = string.match(ticket, TICKET)
  local whole, r = pcall(load, record_prefix .. (member or ''))
  if whole and r and r.entry == old then
    r.entry = new
    save(record_prefix .. member, member, r)
  end
end

note_offers(worker, '', 0, clock())
local returned = 0
local pending = redis.pcall('XPENDING', jobs, group, '-', '+', 1000, worker)
if pending.err then
  return 0 -- there is no group any more
end
while #pending > 0 do
  for _, delivered in ipairs(pending) do
    local entry = delivered[1]
    local found = redis.call('XRANGE', jobs, entry, entry)
    local ticket = redis.call('HGET', tickets, entry)
    drop_job(entry)
    if leave_to_pool(ticket, entry) then
      returned = returned + 1
    elseif found[1] then
      local fields = found[1][2]
      -- A job that a start queued does not name its run: its own id does.
      local new = redis.call('XADD', jobs, '*', 'member', fields[2], 'run', fields[4] or entry)
      if ticket then
        hand_on(ticket, entry, new)
      end
      returned = returned + 1
    end
  end
  pending = redis.call('XPENDING', jobs, group, '-', '+', 1000, worker)
end
redis.call('XGROUP', 'DELCONSUMER', jobs, group, worker)
return returned
