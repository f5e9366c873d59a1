-- Decides the outcome of a start, makes room, writes the record, indexes it and queues the job, all in one step.
-- `run_id` becomes the id of the run: no other start has it, and repeating a start with it changes nothing.
-- Repeating a `request_id` with the same inputs changes nothing either; it is '' where the caller gave none.
-- The argument `steps` is "name=digest" joined by commas, `settling` names those of them that settle; of the limits, 0 is
-- none.
-- The rest, if there is any, is the trace context that the run carries while it is live.
-- Returns {outcome, status, revision, read, unread, own, expired, shed}. The numbers are runs that it has removed: read
-- ones, unread ones, those of its own namespace and expired ones; then those that it has shed, because they waited and
-- could not be ready by their declared time. A joined or repeated start with a trace context also returns that of
-- its run. If nothing makes room, it changes nothing and returns {'full', why, live runs, expired, ended, microseconds in
-- which so many runs have ended}:
--   'queue'      too many runs have not ended
--   'worker'     no worker has come for them in a while
--   'namespace'  the run's namespace has no place that can be freed
--   'records'    no namespace has one

-- Neighbours by name that one call compares to find the first runs of a namespace to remove. In a larger namespace it
-- compares a part of them (docs/decisions/0005).
local WINDOW = 100
local ENDED = {'completed', 'failed', 'cancelled'}
-- More than any time in microseconds, and their sum is still exact in a double.
local AFTER_ALL_READ = 2 ^ 52

-- The namespace's part of a set in the order of names; ';' follows ':'.
local function namespace_range(member)
  local namespace = string.match(member, '^[^:]*')
  return '[' .. namespace .. ':', '(' .. namespace .. ';'
end

-- Returns how many runs of the member's namespace are kept, and how many of these have ended.
local function count_namespace(member)
  local low, high = namespace_range(member)
  local ended = 0
  for _, status in ipairs(ENDED) do
    ended = ended + redis.call('ZLEXCOUNT', with_status[status], low, high)
  end
  local kept = ended + redis.call('ZLEXCOUNT', with_status.pending, low, high)
    + redis.call('ZLEXCOUNT', with_status.in_progress, low, high)
    - step_runs_in('pending', low, high) - step_runs_in('in_progress', low, high)
  return kept, ended
end

-- Returns `number` ended runs of the member's namespace: read ones first, then by the time of their end.
local function first_to_go(member, number, now)
  local low, high = namespace_range(member)
  local found = {}
  for _, status in ipairs(ENDED) do
    local set = with_status[status]
    local count = redis.call('ZLEXCOUNT', set, low, high)
    if count > 0 then
      local first = redis.call('ZLEXCOUNT', set, '-', '(' .. string.sub(low, 2))
      if count > WINDOW then
        -- Another part each time, or those that lie elsewhere would never go.
        first = first + now % (count - WINDOW + 1)
      end
      local names = redis.call('ZRANGE', set, first, first + math.min(count, WINDOW) - 1)
      local when_read = redis.call('ZMSCORE', read, unpack(names))
      local when_unread = redis.call('ZMSCORE', unread, unpack(names))
      for i, name in ipairs(names) do
        local rank = when_read[i] and tonumber(when_read[i]) or tonumber(when_unread[i]) + AFTER_ALL_READ
        found[#found + 1] = {name = name, rank = rank}
      end
    end
  end
  table.sort(found, function(a, b) return a.rank < b.rank end)
  local names = {}
  for i = 1, number do
    names[i] = found[i].name
  end
  return names
end

-- Settles the line of a replaced run, except the work of steps that its successor keeps. Returns that work as numbers of
-- the successor's line.
local function hand_over(member, old_steps, new_steps, names)
  local from, to, moved, work = places(old_steps), places(new_steps), {}, {}
  for name in pairs(names) do
    moved[from[name]] = to[name]
  end
  local numbers = unpacked(redis.call('HGET', unsettled, member) or '')
  for i = 2, #numbers - 3, 4 do
    if moved[numbers[i]] then
      work[#work + 1] = packed(moved[numbers[i]], numbers[i + 1], numbers[i + 2], numbers[i + 3])
    end
  end
  settle(member, 'replaced', moved)
  return table.concat(work)
end

local trace = ...
local now, ttl, patience = clock(), tonumber(ttl_us), tonumber(patience_us)
-- `to` also of a damaged record. A new run has none: whoever receives its start reads it again.
local to = redis.pcall('HGET', record, 'to')
local expired = sweep(now)
local whole, old = pcall(load, record)
if not whole then
  if restart == '0' then
    damaged()
  end
  forget(record, member, 'replaced') -- a restart keeps nothing of the damaged record
  old = nil
end
if old and old.expires <= now then
  old = nil
end

if old and old.run == run_id then
  -- The reply to the same call was lost, and this is its repetition.
  return {'started', old.status, old.revision, 0, 0, 0, expired, 0}
end
if old and request_id ~= '' and old.digest == digest then
  local outcome, revision, known = string.match(redis.call('HGET', record, 'request') or '', '^(%a+) (%d+) (.*)$')
  if known == request_id then
    local carried = trace and redis.call('HGET', record, 'trace') or nil
    return {outcome, old.status, tonumber(revision), 0, 0, 0, expired, 0, carried}
  end
end

-- A start returns only values that live workers would make in the same way.
local every = every_offer()
local class = pipeline .. '@' .. definition
local pool = pool_of(class)
local found = offers_of(every, pipeline, definition, steps, now)
local today = old and makes_run(found, old)

if old and old.digest == digest and restart == '0' then
  if is_live(old.status) and (today or old.status == 'pending') then
    if not today then
      local made, names = made_of(old)
      local left, others = {}, {}
      for _, name in ipairs(names) do
        if makes_step(found, name, made) then
          left[name] = made[name]
        else
          others[#others + 1] = name
        end
      end
      if drop_steps(record, old, others) > 0 then
        drop_step_runs(member, old.steps)
      end
      old.made = made_text(left, names)
    end
    if old.status == 'pending' and old.definition ~= definition then
      -- Its digest is the same under both, and this one is what workers will have.
      local set, score = standing(member, old)
      local before_it = pool_of(class_of(old))
      drop_step_runs(member, old.steps)
      local made = made_of(old)
      local _, names = pairs_of(steps)
      old.definition, old.steps, old.made = definition, steps, made_text(made, names)
      if before_it and before_it ~= pool then
        for _, status in ipairs(IN_POOL) do
          redis.call('ZREM', pool_key(before_it, status), member)
        end
      end
      enter_pool(member, old)
      if score < math.huge and (set ~= waiting or pool) then
        unqueue(member)
        old.entry = queue(member, old, score)
      end
    end
    -- The longest TTL of all starts counts.
    old.ttl = math.max(old.ttl, ttl)
    old.expires = now + math.max(old.ttl, patience)
    save(record, member, old)
    local wanted = place(now, tonumber(need_us))
    hurry_to(wanted, now, record, member, old)
    local set, score = standing(member, old)
    if score >= 0 and score < math.huge then
      -- The earliest declared time counts, except one that has become too late. A run can be too late only if
      -- all its starts declared a time.
      local late = score >= AFTER_ALL or is_late(old, score, expected_of(expected, old.pipeline), now)
      local sooner = late and wanted or math.min(score, wanted)
      score = sooner - sooner % 2 + math.min(score % 2, wanted % 2)
    end
    if redis.call('ZSCORE', set, member) then
      move_to(set, member, old, score)
    end
    enter(member, {joined = 1})
    local carried = trace and redis.call('HGET', record, 'trace') or nil
    return {'joined', old.status, old.revision, 0, 0, 0, expired, 0, carried}
  end
  if old.status == 'completed' and today then
    -- Started again: it must live as long as a new run, and not be the first to be evicted.
    old.ttl, old.seen, old.expires = ttl, 0, math.max(old.expires, now + ttl)
    save(record, member, old)
    announce('dropped', old.run, '-', member)
    enter(member, {reused = 1})
    redis.call('ZREM', read, member)
    redis.call('ZADD', unread, integer(now), member)
    return {'reused', old.status, old.revision, 0, 0, 0, expired, 0}
  end
end

local shed, in_vain
local live = redis.call('ZCARD', with_status.pending) + redis.call('ZCARD', with_status.in_progress)

local function full(why)
  return {'full', why, live, expired, ended_lately(now)}
end

if tonumber(max_live) > 0 and live >= tonumber(max_live) then
  live = live - all_step_runs()
end
if tonumber(max_live) > 0 and live >= tonumber(max_live) and not (old and is_live(old.status)) then
  shed, in_vain = waits_in_vain(pool and unserved_of(class) or waiting, member, expected, now, WINDOW)
  if not shed then
    return full('queue')
  end
end

-- Microseconds that the first run of the queue may wait for any worker: by then an autoscaler has had its time. More
-- starts would wait behind it until they expire.
local WORKERLESS = 300000000

local function nobody_works()
  for till, offered in string.gmatch(every, '(%d+) (%S+) %S+') do
    if tonumber(till) > now and pool_of(offered) == pool then
      return false
    end
  end
  local first = redis.call('ZRANGE', pool and unserved_of(class) or waiting, 0, 0, 'WITHSCORES')
  local score = tonumber(first[2] or ASIDE)
  local since = score < 0 and score + AFTER_ALL or score
  return now - since > WORKERLESS
end

if not (old and is_live(old.status)) and nobody_works() then
  return full('worker')
end

local function evict(victim)
  announce('dropped', '-', '-', victim)
  forget(record_prefix .. victim, victim, 'evicted')
end

local gone = {[read] = 0, [unread] = 0, own = 0}
if not old then
  -- After a limit was lowered there may be many; each start then makes as much room as it may.
  local excess = math.min(redis.call('ZCARD', expiry) + 1 - tonumber(max_records), SWEEP)
  excess = excess > 0 and excess - all_step_runs() or excess
  local own = 0
  if tonumber(namespace_max) > 0 then
    local kept, ended = count_namespace(member)
    own = math.min(kept + 1 - tonumber(namespace_max), WINDOW)
    -- Counted before anything goes, so that a refused start has evicted nothing.
    if ended < own then
      return full('namespace')
    end
  end
  if excess > 0 and redis.call('ZCARD', read) + redis.call('ZCARD', unread) < excess then
    return full('records')
  end
  if own > 0 then
    for _, victim in ipairs(first_to_go(member, own, now)) do
      evict(victim)
      gone.own = gone.own + 1
      excess = excess - 1
    end
  end
  for _, set in ipairs({read, unread}) do
    if excess > 0 then
      for _, victim in ipairs(redis.call('ZRANGE', set, 0, excess - 1)) do
        evict(victim)
        gone[set] = gone[set] + 1
        excess = excess - 1
      end
    end
  end
end

if shed then
  end_run(record_prefix .. shed, shed, in_vain, 'failed', 'shed',
    'shed: could not be ready by the time it was needed', tonumber(failure_ttl_us))
end

local wanted, names = pairs_of(steps)
local kept, made = kept_of(restart == '0' and old, record, wanted, names, found)

local since = since_of(record, old, wanted, settling, now)
local awaited = restart == '0' and still_awaited(record, old, wanted, names)
if old and old.status == 'in_progress' then
  drop_job(old.entry)
end
local carried = old and hand_over(member, old.steps, steps, kept.names) or ''
local r = {
  status = 'pending', revision = old and old.revision + 1 or 1, attempt = 0, tries = 0, run = run_id,
  entry = '-', ttl = ttl, created = now, started = 0, completed = 0, seen = 0,
  expires = now + math.max(ttl, patience), pipeline = pipeline, definition = definition,
  digest = digest, steps = steps, made = made_text(made, names), reason = '-', error = '',
}
-- Every record stands in `expiry`: a run that does not has nothing that could be forgotten.
if old and restart == '0' then
  give_way(record, member, old, r, kept.names, found)
elseif old or redis.call('ZSCORE', expiry, member) then
  forget(record, member, 'expired')
end
r.entry = queue(member, r, place(now, tonumber(need_us)), true)
redis.call('HSET', record, 'inputs', inputs, unpack(kept.steps))
for field, value in pairs(kept.items) do
  redis.call('HSET', record, field, value)
end
if trace then
  redis.call('HSET', record, 'trace', trace)
end
if restart == '1' then
  redis.call('HSET', record, 'fresh', 1)
end
if since then
  redis.call('HSET', record, 'since', since)
end
if awaited then
  redis.call('HSET', record, 'awaited', awaited)
end
local outcome = old and old.digest ~= digest and 'replaced' or 'started'
if request_id ~= '' then
  redis.call('HSET', record, 'request', outcome .. ' ' .. integer(r.revision) .. ' ' .. request_id)
end
save(record, member, r)
open_line(member, carried)
redis.call('ZADD', with_status.pending, 0, member)
enter_pool(member, r)
announce('started', r.run, old and old.run or '-', member, to or '')
count_ends(now, 0)
return {outcome, r.status, r.revision,
  gone[read], gone[unread], gone.own, expired, shed and 1 or 0}
