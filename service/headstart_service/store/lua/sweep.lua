-- Forgets runs that have expired, mends what a clock that was set back has left, and brings tickets for runs that wait without one: those that a
-- worker of an older version has used for another. Returns how many runs it forgot, and 1 when there
-- may be more, else 0.
local now = clock()
note_clock(now)
local expired = sweep(now)
local info = group_info()
if info and info.lag then
  local free = info.lag + info.pending - redis.call('HLEN', tickets)
  local missing = redis.call('ZCOUNT', waiting, '-inf', '(inf') - free
  if missing > 0 then
    for _, member in ipairs(redis.call('ZRANGE', waiting, 0, math.min(missing, SWEEP) - 1)) do
      redis.call('XADD', jobs, '*', 'member', member)
    end
  end
end
-- Lines of runs that are gone: forgotten by a process of a version that kept no ledger.
local some = redis.call('HRANDFIELD', unsettled, 10)
for _, name in ipairs(some) do
  if not redis.call('ZSCORE', expiry, name) then
    settle(name, 'expired')
  end
end
return {expired, expired == SWEEP and 1 or 0}
