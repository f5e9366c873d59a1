-- Gives a delivered job's run to a worker: raises the attempt, which fences off every earlier holder, and shows the run
-- as in progress. The job's first claim binds it to a run, the first in order (_order.lua), and charges its namespace. It
-- passes over runs that cannot be ready in time, and leaves to others those that this worker does not offer.
-- From then on the run's announcements are sent to the worker's `process`.
-- Steps that another maker has made are computed anew. A job without a run is dropped. A run whose workers were lost too
-- often ends here. A run's last try is refused unless `alone` is 1, and is set aside for this job.
-- A step run gets inputs, the values that its step needs and the items that have ended from the record of its run.
-- Returns {} when there is nothing to do, else {attempt, member, run, …}. With attempt 0 there follows why the run was
-- not taken: 'last', 'lost' or 'damaged'. Otherwise there follow {revision, pipeline, inputs, now, field, value, …} with
-- the fields of ended steps and of items, `need` if the start declared it, `trace` if it was traced, `fresh` if it was a
-- restart, and `since` and `awaited` of _settling.lua.
-- Repeating a claim with the same token changes nothing.

-- Late runs that one call passes over, at most.
local PASSED = 100

local owner = redis.call('XPENDING', jobs, group, entry, entry, 1)
if #owner == 0 or owner[1][2] ~= worker then
  return {}
end

local now = clock()
local whole, r = true, nil
local score
-- What the run's namespace was charged: see _charges.lua.
local charged
-- '-' where it is not known, of a damaged record.
local run_id = '-'
-- `offering`: "class makers" for each pipeline of this worker.
local own = {}
for class, makers in string.gmatch(offering, '(%S+) (%S+)') do
  own[class] = makers
end

-- Finds the run of an earlier claim of this job; none when that run has ended or has another job.
local function held(ticket)
  local need, run, name = string.match(ticket, TICKET)
  if not name then
    return
  end
  score, run_id, member, record = tonumber(need), run, name, record_prefix .. name
  charged = string.match(ticket, '^[^ ,]+,(%S+),%d+ ')
  whole, r = pcall(load, record)
  if whole and not (r and r.run == run_id and (r.status == 'in_progress' and r.entry == entry
      or r.status == 'pending' and redis.call('ZSCORE', waiting, member) == ASIDE)) then
    r = nil
  end
end

-- The sets of runs that this worker may take.
local sets = {waiting}
for _, class in ipairs(redis.call('HKEYS', unserved)) do
  if own[class] then
    sets[#sets + 1] = unserved_of(class)
  end
end

-- Finds the run that is first in order.
local function first_in_order()
  local passed, left = 0, 0
  while true do
    local name, place_of, set, turn = first_of(sets)
    if not name or left == PASSED then -- there are as many tickets more than runs as were left
      r = nil
      return
    end
    member, score, record = name, place_of, record_prefix .. name
    whole, r = pcall(load, record)
    if not whole then
      unqueue(member)
      return
    elseif not r or r.status ~= 'pending' then
      unqueue(member)
    elseif not own[class_of(r)] then
      set_aside(member, r, score)
      left = left + 1
    elseif passed < PASSED and not is_step_run(member)
        and is_late(r, score, expected_of(expected, r.pipeline), now) then
      move_to(set, member, r, score + AFTER_ALL)
      passed = passed + 1
    else
      run_id = r.run
      charged = charge(set, member, score, turn, pool_of(class_of(r)), expected_of(costs, r.pipeline), weights)
      if set ~= waiting then
        forget_empty(set, class_of(r))
        redis.call('XADD', jobs, '*', 'member', member, 'run', r.run) -- it had no ticket of its own
      end
      return
    end
  end
end

local ticket = redis.call('HGET', tickets, entry)
if ticket then
  held(ticket)
else
  first_in_order()
end
if not whole then
  drop_job(entry) -- else it would come back to one worker after the other
  return {0, member, run_id, 'damaged'}
end
if not r then
  drop_job(entry)
  return {}
end

if not own[class_of(r)] then
  -- Another worker was lost with it, or was refused its last try. This worker leaves it for those that offer it.
  drop_job(entry)
  leave_to_others(record, member, r, score)
  return {}
end

-- A step run is computed from the record of its run.
local source, theirs, step, needed = record, nil, nil, nil
if is_step_run(member) then
  local _
  _, source, theirs, step, needed = owner_that_waits(member, record)
  if not theirs then
    drop_job(entry)
    drop_step_run(member)
    return {}
  end
end

-- The reply to the same call was lost or late, and this is its repetition: no worker was lost.
local repeated = r.status == 'in_progress' and redis.call('HGET', record, 'claim') == token

if r.tries >= tonumber(max_tries) and not repeated then
  if theirs then
    deliver_step(record, member, r, LETTER.failed .. (redis.call('HGET', record, 'lost') or ''), '')
  else
    drop_job(entry)
    end_run(record, member, r, 'failed', 'worker_lost', lost, tonumber(failure_ttl_us))
  end
  return {0, member, run_id, 'lost'}
end

if not repeated then
  if r.tries == tonumber(max_tries) - 1 and alone == '0' then
    if not ticket then
      stand(waiting, member, tonumber(ASIDE))
      redis.call('HSET', tickets, entry, ticket_of(score, charged, 0, r, member))
    end
    -- The worker asks again until it has nothing beside this job: so long the job stays its own.
    redis.call('XCLAIM', jobs, group, worker, 0, entry, 'JUSTID')
    return {0, member, run_id, 'last'}
  end
  stop_steps(record)
  local made, names = made_of(r)
  local makers, ours, others = pairs_of(own[class_of(r)]), {}, {}
  local every = string.find(r.steps, '/', 1, true) and every_offer() or ''
  local found = with_pools({makers}, every, r.pipeline, r.definition, r.steps, now)
  for _, name in ipairs(names) do
    local stays = makes_step(found, name, made)
    if not stays then
      others[#others + 1] = name
    end
    ours[name] = stays and made[name] or makers[name]
    if found.elsewhere[name]
        and not (stays and STEP_ENDED[letter_of(redis.call('HGET', record, step_field(name)))]) then
      ours[name] = NOT_MADE
    end
  end
  if drop_steps(record, r, others) > 0 then
    drop_step_runs(member, r.steps)
  end
  for name, pool in pairs(pools_of_steps(r.steps)) do
    if not theirs and own[r.pipeline .. '@' .. definition_in(r.definition, pool)] then
      drop_step_run(step_run_of(member, name)) -- this worker computes the step itself
    end
  end
  r.made = made_text(ours, names)
  r.attempt, r.tries, r.entry = r.attempt + 1, r.tries + 1, entry
  if r.started == 0 then
    r.started = now
  end
  if r.status == 'pending' then
    become(member, r, 'in_progress')
  end
  r.expires = now + math.max(r.ttl, tonumber(patience_us))
  redis.call('HSET', record, 'claim', token)
  send_to(record, process, 0)
  if ticket then
    unqueue(member)
    charged = charged
      or charge_aside(member, score, pool_of(class_of(r)), expected_of(costs, r.pipeline), weights)
  end
  redis.call('HSET', tickets, entry, ticket_of(score, charged, now, r, member))
  -- It may have waited for its turn nearly as long as a lease: the lease begins now.
  redis.call('XCLAIM', jobs, group, worker, 0, entry, 'JUSTID')
  save(record, member, r)
  announce('claimed', r.run, '-', member)
end

local reply = {r.attempt, member, r.run, r.revision, r.pipeline, redis.call('HGET', source, 'inputs'), now}
if need_of(score) then
  reply[#reply + 1] = 'need'
  reply[#reply + 1] = integer(need_of(score))
end
local BESIDE_STEPS = {trace = true, fresh = true, since = true, awaited = true}
local fields = redis.call('HGETALL', source)
for i = 1, #fields, 2 do
  local own = is_step(fields[i]) and (not needed or needed[fields[i]]) or is_items(fields[i], step)
  if own or BESIDE_STEPS[fields[i]] then
    reply[#reply + 1] = fields[i]
    reply[#reply + 1] = fields[i + 1]
  end
end
return reply
