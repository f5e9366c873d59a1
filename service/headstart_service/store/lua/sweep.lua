-- Forgets runs that have expired. Returns how many, and 1 when there may be more, else 0.
local expired = sweep(clock())
-- Lines of runs that are gone: forgotten by a process of a version that kept no ledger.
local some = redis.call('HRANDFIELD', unsettled, 10)
for _, name in ipairs(some) do
  if not redis.call('ZSCORE', expiry, name) then
    settle(name, 'expired')
  end
end
return {expired, expired == SWEEP and 1 or 0}
