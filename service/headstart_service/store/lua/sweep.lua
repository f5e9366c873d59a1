-- Forgets runs that have expired, mends what a clock that was set back has left, and brings tickets for runs
-- that wait without one. Returns how many runs it forgot, 1 when there may be more, else 0, and 1 when the
-- indexes are to be mended (reindex.lua), else 0.
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
-- Lines of runs that are gone without a script of ours: deleted or evicted by others.
local some = redis.call('HRANDFIELD', unsettled, 10)
for _, name in ipairs(some) do
  if not redis.call('ZSCORE', expiry, name) then
    settle(name, 'expired')
  end
end
if expired == SWEEP then
  return {expired, 1, 0}
end

-- Whether the indexes disagree: somebody, or a server that evicts keys, has deleted one.
local function disagree()
  local counts, kept = {}, 0
  for status, set in pairs(with_status) do
    counts[status] = redis.call('ZCARD', set)
    kept = kept + counts[status]
  end
  local queued = redis.call('ZCARD', waiting)
  for _, class in ipairs(redis.call('HKEYS', unserved)) do
    queued = queued + redis.call('ZCARD', unserved_of(class))
  end
  return kept ~= redis.call('ZCARD', expiry)
    or queued ~= counts.pending
    or redis.call('ZCARD', read) + redis.call('ZCARD', unread) ~= kept - counts.pending - counts.in_progress
    or redis.call('HLEN', tickets) < counts.in_progress
    or (info and info.pending or 0) < counts.in_progress
end

-- Mending looks at every record: what it cannot mend, such as a damaged one, is looked at once a minute.
local MENDED = 'mended'
local EVERY_US = 60000000
if disagree() and math.abs(now - (tonumber(redis.call('HGET', ledger, MENDED)) or 0)) > EVERY_US then
  redis.call('HSET', ledger, MENDED, integer(now))
  return {expired, 0, 1}
end
return {expired, 0, 0}
