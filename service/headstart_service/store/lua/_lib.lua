-- Shared by every script and put in front of each. A script is the body of a function that is called
-- with `record` and `member`, the key and the name of the run it is about, its own arguments by name,
-- and the rest as `...`. KEYS start with the partition's fixed keys, in the order of keys.FIXED.

local jobs, expiry, unread, read = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local with_status = {
  pending = KEYS[5], in_progress = KEYS[6], completed = KEYS[7], failed = KEYS[8], cancelled = KEYS[9],
}
local waiting, tickets, ledger, unsettled = KEYS[10], KEYS[11], KEYS[12], KEYS[13]
local channel, record_prefix, group = ARGV[1], ARGV[2], ARGV[3]

-- Microseconds since the epoch, by this server's clock. A double holds them exactly until 2255.
local function clock()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000000 + tonumber(time[2])
end

local function integer(number)
  return string.format('%.0f', number)
end

local function is_live(status)
  return status == 'pending' or status == 'in_progress'
end

local function announce(kind, revision, steps, member)
  redis.call('PUBLISH', channel, kind .. ' ' .. revision .. ' ' .. steps .. ' ' .. member)
end

-- A record is a hash. Its small fields are one line of text, `about`, because Redis needs 50 bytes for
-- each field of its own; beside it are `inputs` until the run has ended, the trace context of its start
-- (`trace`) as long, if that was traced, `fresh` as long, if it was a restart, the token of the last
-- `claim` until its first commit, and a field for each step that runs or has ended: "s:<name>", the letter of
-- its state and its piece of the response.
--
-- The fields of `about`: numbers are 0, and texts are '-', where there is nothing. Times are in
-- microseconds. `seen` is 1 once the run was read after it had ended. `error` is last, since it alone
-- may hold spaces.
local ABOUT = '^(%S+) (%d+) (%d+) (%d+) (%S+) (%S+) ' .. string.rep('(%d+) ', 6)
  .. '(%S+) (%S+) (%S+) (.*)$'
-- What a double holds exactly. More would be written back as another number, or as none at all.
local LARGEST = 2 ^ 53

-- The whole transition's end, before it has written anything: others may have got at the record.
local function damaged()
  error({err = 'DAMAGED the record is not one of ours'})
end

local function load(record)
  local text = redis.pcall('HGET', record, 'about')
  if not text then
    if redis.call('EXISTS', record) == 1 then
      damaged()
    end
    return nil
  elseif type(text) == 'table' then -- the key is of another type
    damaged()
  end
  local r = {}
  local revision, attempt, tries, ttl, created, started, completed, expires, seen
  r.status, revision, attempt, tries, r.run, r.entry, ttl, created, started, completed, expires, seen,
    r.pipeline, r.digest, r.steps, r.error = string.match(text, ABOUT)
  r.revision, r.attempt, r.tries, r.ttl = tonumber(revision), tonumber(attempt), tonumber(tries), tonumber(ttl)
  r.created, r.started, r.completed = tonumber(created), tonumber(started), tonumber(completed)
  r.expires, r.seen = tonumber(expires), tonumber(seen)
  if not (r.error and with_status[r.status] and math.max(r.revision, r.attempt, r.tries, r.ttl,
      r.created, r.started, r.completed, r.expires, r.seen) < LARGEST) then
    damaged()
  end
  return r
end

-- Writes `about`, and makes the record and its place in `expiry` expire together.
local function save(record, member, r)
  redis.call('HSET', record, 'about', table.concat({
    r.status, integer(r.revision), integer(r.attempt), integer(r.tries), r.run, r.entry, integer(r.ttl),
    integer(r.created), integer(r.started), integer(r.completed), integer(r.expires), integer(r.seen),
    r.pipeline, r.digest, r.steps, r.error,
  }, ' '))
  redis.call('PEXPIREAT', record, integer(math.ceil(r.expires / 1000)))
  redis.call('ZADD', expiry, integer(r.expires), member)
end

-- Changes the status and the index of it.
local function become(member, r, status)
  redis.call('ZREM', with_status[r.status], member)
  redis.call('ZADD', with_status[status], 0, member)
  r.status = status
end

-- Takes a run out of every set; its record may be gone already.
local function forget(record, member)
  redis.call('UNLINK', record)
  redis.call('ZREM', expiry, member)
  redis.call('ZREM', unread, member)
  redis.call('ZREM', read, member)
  for _, set in pairs(with_status) do
    redis.call('ZREM', set, member)
  end
end

-- How many runs one call may forget: Redis serves nobody else for some 15 ms.
local SWEEP = 1000

-- Forgets runs that have expired. Returns how many; with SWEEP of them there may be more.
local function sweep(now)
  local expired = redis.call('ZRANGEBYSCORE', expiry, '-inf', integer(now), 'LIMIT', 0, SWEEP)
  for _, member in ipairs(expired) do
    forget(record_prefix .. member, member)
  end
  return #expired
end

-- Removes the fields of steps that were running, so that they read as pending again.
local function stop_steps(record)
  local fields = redis.call('HGETALL', record)
  for i = 1, #fields, 2 do
    if string.sub(fields[i], 1, 2) == 's:' and string.sub(fields[i + 1], 1, 1) == 'R' then
      redis.call('HDEL', record, fields[i])
    end
  end
end

local function end_run(record, member, r, status, why, ttl_us)
  local now = clock()
  redis.call('HDEL', record, 'inputs', 'claim', 'trace', 'fresh')
  if status ~= 'completed' then
    stop_steps(record)
  end
  become(member, r, status)
  r.completed, r.expires, r.entry, r.error = now, now + ttl_us, '-', why
  save(record, member, r)
  redis.call('ZADD', unread, integer(now), member)
  announce(status == 'cancelled' and 'cancelled' or 'ended', r.revision, '-', member)
end

-- The jobs' consumer group as a table of Redis's own fields, or nil when there is none.
local function group_info()
  for _, fields in ipairs(redis.pcall('XINFO', 'GROUPS', jobs)) do
    local info = {}
    for i = 1, #fields, 2 do
      info[fields[i]] = fields[i + 1]
    end
    if info.name == group then
      return info
    end
  end
  return nil
end

-- Takes a delivered job off the queue. Its entry goes when no older one is left, because deleting
-- entries makes the queue's lag unknown, by which workers are scaled; trimming does not. So the job
-- of a run that ended before it was delivered stays, too: the worker that gets it drops it.
local function drop_job(entry)
  redis.pcall('XACK', jobs, group, entry) -- refused, if a damaged record names no entry
  local info = group_info()
  if not info then
    return
  end
  local oldest
  if info.pending > 0 then
    oldest = redis.call('XPENDING', jobs, group)[2]
  else
    local time, number = string.match(info['last-delivered-id'], '(%d+)-(%d+)')
    oldest = time .. '-' .. integer(tonumber(number) + 1)
  end
  redis.call('XTRIM', jobs, 'MINID', oldest)
end
