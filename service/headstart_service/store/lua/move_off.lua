-- Removes a run that another partition has now; its work is settled there. Returns 1.

local whole, r = pcall(load, record)
if whole and r and r.status == 'in_progress' then
  drop_job(r.entry)
end
redis.call('HDEL', unsettled, member)
forget(record, member, 'expired')
return 1
