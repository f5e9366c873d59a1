-- Removes a run that another partition has now. Its work is settled there, so its start counts there.
-- Returns 1.

local whole, r = pcall(load, record)
if whole and r and r.status == 'in_progress' then
  drop_job(r.entry)
end
if redis.call('HDEL', unsettled, member) == 1 then
  for _, book in ipairs({'*', string.match(member, '^[^:]*')}) do
    if redis.call('HEXISTS', ledger, book .. ' starts') == 1 then
      redis.call('HINCRBY', ledger, book .. ' starts', -1)
    end
  end
end
forget(record, member, 'expired')
return 1
