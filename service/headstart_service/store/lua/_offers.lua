-- Offers: the pipelines that workers can run, and the makers of their steps' values. A *class* of runs is
-- "pipeline@definition": a worker computes a run only if it offers its class. A *maker* is a digest of the
-- identities of all providers that a step depends on; a step without providers has the maker '-'.
--
-- The hash `offers` has a field for each worker: the time when its offers end, then "class makers" for each of
-- its pipelines. Makers are "step=maker" joined by commas, or '-'. The field EVERY has the offers of all
-- workers, each once, as "until class makers". For a pipeline without offers now it keeps the last ones.
local EVERY = '='
-- The maker of a step that a caller has reported: this sign, then the sign and a name for each step that it was
-- made of. Any worker that would make these steps in the same way may continue the run.
local REPORTED = '*'
-- The maker of a step of another pool until a worker of that pool has made its value.
local NOT_MADE = '~'

local function is_reported(maker)
  return string.sub(maker or '', 1, 1) == REPORTED
end

-- Parses "step=value" joined by commas; a value may have "/pool" behind it. Returns each step's value, and the steps in
-- their order.
local function pairs_of(text)
  local values, names = {}, {}
  for name, value in string.gmatch(text, '([^=,]+)=([^,/]+)') do
    values[name] = value
    names[#names + 1] = name
  end
  return values, names
end

-- Returns the pools of the steps that are in another pool than their run, as "step=digest/pool" names them.
local function pools_of_steps(steps)
  local found = {}
  if string.find(steps, '/', 1, true) then
    for name, pool in string.gmatch(steps, '([^=,]+)=[^,/]+/([^,]+)') do
      found[name] = pool
    end
  end
  return found
end

-- The definition that workers of a pool offer for steps of runs of this definition.
local function definition_in(definition, pool)
  return string.match(definition, '^[^/]*') .. (pool ~= 'default' and '/' .. pool or '')
end

-- Returns the maker of each step of a record, and the steps in their order.
local function made_of(r)
  local _, names = pairs_of(r.steps)
  local made, i = {}, 0
  for maker in string.gmatch(r.made, '[^.]+') do
    i = i + 1
    if names[i] then
      made[names[i]] = maker
    end
  end
  return made, names
end

-- Encodes makers as a record keeps them: '-' where no step has a maker.
local function made_text(made, names)
  local parts, any = {}, false
  for i, name in ipairs(names) do
    parts[i] = made[name] or '-'
    any = any or parts[i] ~= '-'
  end
  return any and table.concat(parts, '.') or '-'
end

-- What stands before the digest of a step that was made without a need. No plan has such a digest, so no later revision
-- takes the step over.
local DEGRADED = '-'

-- Notes that these steps, joined by commas, were made without a need.
local function degrade(r, names)
  local steps = ',' .. r.steps
  for name in string.gmatch(names, '[^,]+') do
    steps = string.gsub(steps, ',' .. name .. '=([^,-])', ',' .. name .. '=' .. DEGRADED .. '%1')
  end
  r.steps = string.sub(steps, 2)
end

local function is_degraded(digest)
  return string.sub(digest or '', 1, #DEGRADED) == DEGRADED
end

-- Whether a step of this digest in a record was given what a plan with the digest `wanted` gives it.
local function is_of_digest(digest, wanted)
  return digest == wanted or digest == DEGRADED .. wanted
end

-- Returns whether a step of a run may begin, by its `needs`: names, '?' before those that it can do without. Those must
-- have ended, or the run does not have them; the others must have a result. Then it also returns the names of those that
-- have a result, and whether a value made of them is degraded.
local function given_by(record, r, needs)
  local digests, given, degraded = pairs_of(r.steps), {}, false
  for _, need in ipairs(needs) do
    local name = string.match(need, '^%??(.*)$')
    local has = letter_of(redis.call('HGET', record, step_field(name)))
    if has == LETTER.completed then
      given[#given + 1] = name
      degraded = degraded or is_degraded(digests[name])
    elseif name == need or (digests[name] and not STEP_ENDED[has]) then
      return false
    else
      degraded = degraded or digests[name] ~= nil
    end
  end
  return true, given, degraded
end

local function every_offer()
  return redis.call('HGET', offers, EVERY) or ''
end

-- Returns the makers in each offer of this class, of live workers. If none of them offers the pipeline in the class's
-- pool, returns those that were offered last; nil when no worker has ever offered it. `every` are the offers of all workers.
local function offers_in(every, pipeline, class, now)
  local today, last, offered, known = {}, {}, false, false
  local own, pool = pipeline .. '@', pool_of(class)
  for till, other, makers in string.gmatch(every, '(%d+) (%S+) (%S+)') do
    if string.sub(other, 1, #own) == own and pool_of(other) == pool then
      known = true
      local live = tonumber(till) > now
      offered = offered or live
      if other == class then
        local found = live and today or last
        found[#found + 1] = pairs_of(makers)
      end
    end
  end
  return known and (offered and today or last) or nil
end

-- Adds to these offers those of the pools of the run's `steps`, by step.
local function with_pools(found, every, pipeline, definition, steps, now)
  if found then
    found.elsewhere = {}
    for name, pool in pairs(pools_of_steps(steps)) do
      local class = pipeline .. '@' .. definition_in(definition, pool)
      found.elsewhere[name] = offers_in(every, pipeline, class, now) or 'any'
    end
  end
  return found
end

-- As `offers_in`, for a run with these `steps`.
local function offers_of(every, pipeline, definition, steps, now)
  local found = offers_in(every, pipeline, pipeline .. '@' .. definition, now)
  return with_pools(found, every, pipeline, definition, steps, now)
end

-- Whether one of these offers makes the step's value as it was `made`. The maker of a reported step, or of one that takes
-- values of steps of other pools, names these: it needs the same of them.
local function makes_step(found, name, made)
  if not found or made[name] == NOT_MADE then
    return true
  end
  for need in string.gmatch(made[name] or '', '%*([^*]+)') do
    if not makes_step(found, need, made) then
      return false
    end
  end
  if is_reported(made[name]) then
    return true
  end
  local offered = found.elsewhere and found.elsewhere[name] or found
  if offered == 'any' then
    return true
  end
  for _, makers in ipairs(offered) do
    if (makers[name] or '-') == (made[name] or '-') then
      return true
    end
  end
  return false
end

-- Removes the results of these steps. A caller may have read them, and may report a step that it made of them.
-- An ended step never changes within its revision, so the record becomes a new revision.
local function drop_steps(record, r, names)
  local dropped = 0
  for _, name in ipairs(names) do
    dropped = dropped + redis.call('HDEL', record, step_field(name))
    drop_items(record, name)
  end
  if dropped > 0 then
    r.revision = r.revision + 1
  end
  return dropped
end

-- Whether one of these offers makes all of this run's values as they were made.
local function makes_run(found, r)
  local made, names = made_of(r)
  for _, makers in ipairs(found or {}) do
    local same = true
    for _, name in ipairs(names) do
      same = same and makes_step({makers, elsewhere = found.elsewhere}, name, made)
    end
    if same then
      return true
    end
  end
  return not found
end

-- Why no worker can take a pending run: 'worker' when there is none, 'pool' when none of them serves its pool, 'pipeline'
-- when none of those offers it, 'version' when they offer another definition of it; nil when a worker can take it.
local function lacks(r, now)
  if r.status ~= 'pending' then
    return nil
  end
  local any, pool, pipeline = false, false, false
  local own = r.pipeline .. '@'
  for till, class in string.gmatch(every_offer(), '(%d+) (%S+) %S+') do
    if tonumber(till) > now then
      any = true
      if class == class_of(r) then
        return nil
      end
      if pool_of(class) == pool_of(class_of(r)) then
        pool = true
        pipeline = pipeline or string.sub(class, 1, #own) == own
      end
    end
  end
  local elsewhere = any and not pool
  if not any then -- a worker may be there and be able to run nothing at the moment
    for _, text in ipairs(redis.call('HVALS', offers)) do
      any = any or tonumber(string.match(text, '^%d+') or 0) > now
    end
  end
  return any and (elsewhere and 'pool' or pipeline and 'version' or 'pipeline') or 'worker'
end

-- The pipeline and the pool of a class: the last offers of each are kept while it has no worker.
local function offered_in(class)
  return string.match(class, '^[^@]*') .. '/' .. (pool_of(class) or '')
end

-- Notes a worker's offers for `ttl` microseconds from now; with 0 it removes them.
local function note_offers(worker, offering, ttl, now)
  local till_of, live = {}, {}
  local function add(text, till)
    for class, makers in string.gmatch(text, '(%S+) (%S+)') do
      local offer = class .. ' ' .. makers
      till_of[offer] = math.max(till_of[offer] or 0, till)
      if till > now then
        live[offered_in(class)] = true
      end
    end
  end
  local known = redis.call('HGETALL', offers)
  for i = 1, #known, 2 do
    local name = known[i]
    if name ~= EVERY then
      local till, text = string.match(known[i + 1], '^(%d+) (.*)$')
      till = tonumber(till) or 0
      if name == worker or till <= now then
        redis.call('HDEL', offers, name)
        till = math.min(till, now)
      end
      add(text or '', till)
    end
  end
  if ttl > 0 then
    redis.call('HSET', offers, worker, integer(now + ttl) .. ' ' .. offering)
    add(offering, now + ttl)
  end
  for till, offer in string.gmatch(every_offer(), '(%d+) (%S+ %S+)') do
    till_of[offer] = till_of[offer] or math.min(tonumber(till), now)
  end
  local lines = {}
  for offer, till in pairs(till_of) do
    if till > now or not live[offered_in(string.match(offer, '^%S+'))] then
      lines[#lines + 1] = integer(till) .. ' ' .. offer
    end
  end
  if #lines > 0 then
    redis.call('HSET', offers, EVERY, table.concat(lines, '\n'))
  end
end
