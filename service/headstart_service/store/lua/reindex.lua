-- Mends a part of the indexes. With `index` '-' it scans some records by their keys, and puts each into the sets of its
-- status. With a status or 'expiry' it scans some members of this set, and removes those without a record. Each call
-- is bounded; the next continues at the returned cursor.
-- A pending run that is in no queue is queued. So is a run in progress without a job; no try is counted.
-- Returns {cursor, how much was mended}; the cursor is '0' behind the last.

local COUNT = 500
local mended = 0

local function mend(changed)
  if changed == 1 then
    mended = mended + 1
  end
end

local function queue_again(member, r)
  r.entry = queue(member, r, place(r.created, -1))
  save(record_prefix .. member, member, r)
  mend(1)
end

local function mend_pending(member, r)
  local set, score = standing(member, r)
  if not redis.call('ZSCORE', set, member) then
    queue_again(member, r)
    return
  elseif set ~= waiting then
    mend(redis.call('HSETNX', unserved, class_of(r), 1))
  end
  if score < math.huge then
    mend(complete(set, member, score))
  end
end

local function mend_in_progress(member, r)
  local delivered = redis.pcall('XPENDING', jobs, group, r.entry, r.entry, 1)
  if delivered.err or #delivered == 0 then
    stop_steps(record_prefix .. member)
    redis.call('HDEL', tickets, r.entry)
    become(member, r, 'pending')
    r.tries = r.tries - 1
    queue_again(member, r)
    announce('released', r.run, '-', member)
  else
    local ticket = integer(place(r.created, -1)) .. ' ' .. r.run .. ' ' .. member
    mend(redis.call('HSETNX', tickets, r.entry, ticket))
  end
end

local function mend_ended(member, r)
  if not redis.call('ZSCORE', read, member) and not redis.call('ZSCORE', unread, member) then
    mend(redis.call('ZADD', r.seen == 1 and read or unread, integer(r.completed), member))
  end
end

local function mend_run(member)
  local whole, r = pcall(load, record_prefix .. member)
  if not whole or not r then
    return
  end
  mend(redis.call('ZADD', expiry, 'NX', integer(r.expires), member))
  for status, set in pairs(with_status) do
    if status == r.status then
      mend(redis.call('ZADD', set, 'NX', 0, member))
    else
      mend(redis.call('ZREM', set, member))
    end
  end
  enter_pool(member, r)
  if r.status == 'pending' then
    mend_pending(member, r)
  elseif r.status == 'in_progress' then
    mend_in_progress(member, r)
  else
    mend_ended(member, r)
  end
end

if index ~= '-' then
  local found = redis.call('ZSCAN', with_status[index] or expiry, cursor, 'COUNT', COUNT)
  for i = 1, #found[2], 2 do
    local name = found[2][i]
    if redis.call('EXISTS', record_prefix .. name) == 0 then
      forget(record_prefix .. name, name, 'evicted')
      mend(1)
    end
  end
  return {found[1], mended}
end
local pattern = string.gsub(record_prefix, '[%*%?%[%]\\]', '\\%0') .. '*'
local found = redis.call('SCAN', cursor, 'MATCH', pattern, 'COUNT', COUNT)
for _, key in ipairs(found[2]) do
  mend_run(string.sub(key, #record_prefix + 1))
end
return {found[1], mended}
