-- Forgets expired runs, corrects times after the clock was set back, and adds tickets for waiting runs without one.
-- Returns {forgotten runs, 1 when there may be more, 1 when the indexes need mending by reindex.lua}, else 0 for each.
local now = clock()
note_clock(now)
local expired = sweep(now)
local all_pools = pools()
for band = 0, BANDS - 1 do
  forget_served(nil, band, SWEEP)
  for _, pool in ipairs(all_pools) do
    forget_served(pool, band, SWEEP)
  end
end
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
-- Lines of runs that no script has removed: another client or an eviction has.
local some = redis.call('HRANDFIELD', unsettled, 10)
for _, name in ipairs(some) do
  if not redis.call('ZSCORE', expiry, name) then
    settle(name, 'expired')
  end
end
if expired == SWEEP then
  return {expired, 1, 0}
end

-- Whether the indexes disagree: another client, or an eviction, has deleted one.
local function disagree()
  local counts, kept = {}, 0
  for status, set in pairs(with_status) do
    counts[status] = redis.call('ZCARD', set)
    kept = kept + counts[status]
  end
  local queued, disordered = 0, false
  for _, set in ipairs(all_sets()) do
    queued = queued + redis.call('ZCARD', set)
    if is_disordered(set) then
      disordered = true
      -- Mending adds each run's entry anew.
      redis.call('UNLINK', order_of(set), turns_of(set, 0), turns_of(set, 1), turns_of(set, 2))
    end
  end
  return disordered or kept ~= redis.call('ZCARD', expiry)
    or queued ~= counts.pending
    or redis.call('ZCARD', read) + redis.call('ZCARD', unread) ~= kept - counts.pending - counts.in_progress
    or redis.call('HLEN', tickets) < counts.in_progress
    or (info and info.pending or 0) < counts.in_progress
end

-- Mending reads every record. A damage that it cannot mend, such as a damaged record, costs this once a minute.
local MENDED = 'mended'
local EVERY_US = 60000000
if math.abs(now - (tonumber(redis.call('HGET', ledger, MENDED)) or 0)) > EVERY_US and disagree() then
  redis.call('HSET', ledger, MENDED, integer(now))
  return {expired, 0, 1}
end
return {expired, 0, 0}
