-- Step runs (docs/decisions/0058). A step of another pool than its run's is a run of its own, in the same partition. It has
-- a record without inputs and results, waits in the queue of its class, and is claimed, renewed and released like others.
-- Its end writes the step into the record of its run, as a report does, and removes it. When its run is replaced by one
-- for which its step is the same, it goes on for that. It stands among the runs of its status, so that workers are scaled
-- by it; `step_runs:<status>` has those alone. The ledger has no line of it.

-- How many step runs of a status have names in this range.
local function step_runs_in(status, low, high)
  return redis.call('ZLEXCOUNT', step_runs_of(status), low, high)
end

-- How many step runs there are.
local function all_step_runs()
  return redis.call('ZCARD', step_runs_of('pending')) + redis.call('ZCARD', step_runs_of('in_progress'))
end

local function step_run_of(member, step)
  return member .. STEP_RUN .. step
end

-- Removes a step run: from every set where a run that has not ended stands.
local function remove_step_run(name)
  redis.call('UNLINK', record_prefix .. name)
  unqueue(name)
  redis.call('ZREM', expiry, name)
  for _, status in ipairs(IN_POOL) do
    redis.call('ZREM', with_status[status], name)
    redis.call('ZREM', step_runs_of(status), name)
    for _, pool in ipairs(pools()) do
      redis.call('ZREM', pool_key(pool, status), name)
    end
  end
end

-- Withdraws a step run, if there is one: its worker stops.
local function drop_step_run(name)
  local whole, r = pcall(load, record_prefix .. name)
  if whole and not r then
    return
  end
  announce('dropped', whole and r.run or '-', '-', name)
  if whole and r.status == 'in_progress' then
    drop_job(r.entry)
  end
  remove_step_run(name)
end

-- Withdraws the step runs of a run with these steps, except those that are `going_on`.
local function drop_step_runs(member, steps, going_on)
  for step in pairs(pools_of_steps(steps)) do
    if not (going_on and going_on[step]) then
      drop_step_run(step_run_of(member, step))
    end
  end
end

-- Returns the step run of a run's step, if it may compute that for the run's successor, which has `kept` these steps:
-- nothing that the step depends on has changed. `found` are the offers for the successor.
local function may_go_on(name, step, r, pipeline, definition, kept, found)
  local whole, own = pcall(load, record_prefix .. name)
  if not (whole and own) or own.pipeline ~= pipeline or own.definition ~= definition
      or redis.call('HGET', record_prefix .. name, 'of') ~= r.run then
    return nil
  end
  for need in string.gmatch(redis.call('HGET', record_prefix .. name, 'needs') or '', '[^,]+') do
    if not kept[need] then
      return nil
    end
  end
  local made = made_of(r)
  made[step] = made_of(own)[step]
  return (own.status == 'pending' or makes_step(found, step, made)) and own or nil
end

-- Gives step runs of a run that is replaced to its successor `new`, which has these `steps` and has `kept` those.
-- Returns the steps of those that go on; nil if there is none.
local function hand_on_step_runs(member, old, new, kept, found)
  local digests, wanted, going_on = pairs_of(old.steps), pairs_of(new.steps), nil
  local before = pools_of_steps(old.steps)
  for step, pool in pairs(pools_of_steps(new.steps)) do
    if before[step] == pool and digests[step] == wanted[step] and not kept[step] then
      local name = step_run_of(member, step)
      local own = may_go_on(name, step, old, new.pipeline, definition_in(new.definition, pool), kept, found)
      if own then
        own.revision, own.ttl, own.expires = new.revision, new.ttl, math.max(own.expires, new.expires)
        redis.call('HSET', record_prefix .. name, 'of', new.run)
        save(record_prefix .. name, name, own)
        going_on = going_on or {}
        going_on[step] = true
      end
    end
  end
  return going_on
end

-- Returns the run of a step run, if that still wants its step and has what the step needs: its name, its record, its line,
-- the step, a table with the fields of the steps that it is given, and whether a value made of them is degraded.
local function owner_that_waits(member, record)
  local name, step = owner_of(member)
  local owner = record_prefix .. name
  local whole, r = pcall(load, owner)
  if not (whole and r and is_live(r.status)) or r.run ~= redis.call('HGET', record, 'of')
      or STEP_ENDED[letter_of(redis.call('HGET', owner, step_field(step)))] then
    return nil
  end
  local needs = {}
  for need in string.gmatch(redis.call('HGET', record, 'needs') or '', '[^,]+') do
    needs[#needs + 1] = need
  end
  local ready, given, degraded = given_by(owner, r, needs)
  if not ready then
    return nil
  end
  local fields = {}
  for _, need in ipairs(given) do
    fields[step_field(need)] = true
  end
  return name, owner, r, step, fields, degraded
end

-- Ends a step run: writes the value of its step, with what it cost, into the record of its run.
local function deliver_step(record, member, r, value, work, took)
  local name, owner, theirs, step, _, degraded = owner_that_waits(member, record)
  if name then
    note_work(owner, name, theirs, work)
    redis.call('HSET', owner, step_field(step), value)
    drop_items(owner, step)
    if degraded and letter_of(value) == LETTER.completed then
      degrade(theirs, step)
    end
    local made, names = made_of(theirs)
    made[step] = made_of(r)[step]
    theirs.made = made_text(made, names)
    save(owner, name, theirs)
    announce('reported', theirs.run, step, name)
  end
  drop_job(r.entry, took)
  remove_step_run(member)
end

-- Lets the step runs of a run go first: a caller waits for the run. Workers that compute some already hurry those that its
-- `awaited` steps need.
local function hurry_step_runs(member, r, awaited)
  for step in pairs(pools_of_steps(r.steps)) do
    local name = step_run_of(member, step)
    local whole, own = pcall(load, record_prefix .. name)
    if whole and own and own.status == 'pending' then
      local set, score = standing(name, own)
      if score >= 0 and score < math.huge then
        move_to(set, name, own, place(clock(), -1) - AFTER_ALL)
      end
    elseif whole and own and later_need(own) then
      note_awaited(record_prefix .. name, name, own, awaited, r.steps)
    end
  end
end

-- Of the time left: what is sooner, as in worker/hurry.py. Starts for the same moment differ by their delays.
local SOONER = 0.9

-- Hurries a run in progress that was to be needed later than a run with this score is.
local function hurry_to(score, now, record, member, r)
  local need = later_need(r)
  if need and score - now < SOONER * (need - now) then
    ask(record, member, r, ALL_STEPS)
    hurry_step_runs(member, r, ALL_STEPS)
  end
end

-- Returns the steps of a run that wait for a worker of their pool while there is none, as "step pool lack" joined by
-- commas; '' without any.
local function lacking_steps(member, r, now)
  local found = {}
  for step, pool in pairs(is_live(r.status) and pools_of_steps(r.steps) or {}) do
    local whole, own = pcall(load, record_prefix .. step_run_of(member, step))
    local lack = whole and own and lacks(own, now)
    if lack then
      found[#found + 1] = step .. ' ' .. pool .. ' ' .. lack
    end
  end
  return table.concat(found, ',')
end
