-- Records: a hash for each run. Redis needs 50 bytes for each field of a hash, so the small fields are one line
-- of text, `about`. Beside it a record has these fields:
--   inputs    until the run has ended
--   trace     the trace context of its start, if that was traced, until the run has ended
--   fresh     1 after a restart, until the run has ended
--   claim     the token of the last claim, until its first commit
--   of, needs, lost   of a step run: the id of its run; the steps that its step needs, as given_by takes them; the report of its step if its
--             workers are lost
--   since, awaited   see _settling.lua
--   request   "outcome revision request-id" of the start that made the run, if it had a request id
--   s:<name>  for each step that runs or has ended: the letter of its state, then its fragment
--   n:<name>  of a step that runs for each item of a list, until it has ended: the number of chunks, and their basis
--   i:<name>:<number>  beside it: a chunk, the fragment of items that ended together
--
-- records.py declares the order of the fields of `about`, and generates `decode_about`, `encode_about` and the
-- constants of step fields. In `about`, numbers without a value are 0 and texts are '-'. Times are in microseconds.
-- `run` is the run's id, which no other start repeats, even after a loss of data. `seen` is 1 once the run was
-- read after its end. `definition` is the pipeline's. `made` has the maker of each step, in the order of `steps`.

-- Ends the whole transition before it has written anything: another program may have changed the record.
local function damaged()
  error({err = 'DAMAGED the record is not one of ours'})
end

-- Reads a record's line; nil where there is no record. Refuses a damaged one.
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
  local r = decode_about(text)
  if not (r and with_status[r.status]) then
    damaged()
  end
  return r
end

-- Writes `about`, and makes the record, its partial results and its place in `expiry` expire together.
local function save(record, member, r)
  redis.call('HSET', record, 'about', encode_about(r))
  redis.call('PEXPIREAT', record, integer(math.ceil(r.expires / 1000)))
  redis.call('PEXPIREAT', partials_of(member), integer(math.ceil(r.expires / 1000)))
  redis.call('ZADD', expiry, integer(r.expires), member)
end

local function class_of(r)
  return r.pipeline .. '@' .. r.definition
end

-- The pool of a class, or of the set of its runs; nil for the default pool. Another pool ends the definition: "digest/pool".
local function pool_of(class)
  return string.match(class, '/([^/:]*)$')
end

-- The key of what a pool has apart from others.
local function pool_key(pool, name)
  return string.sub(jobs, 1, -1 - #'jobs') .. 'pool:' .. pool .. ':' .. name
end

local function pool_names()
  return string.sub(jobs, 1, -1 - #'jobs') .. 'pools'
end

-- The pools, other than the default one, that have had runs.
local function pools()
  return redis.call('SMEMBERS', pool_names())
end

-- A pool's runs that have not ended stand in a set for each status, by whose sizes its workers are scaled.
local IN_POOL = {'pending', 'in_progress'}

-- A *step run* computes one step of a run, which itself is in another pool (_step_runs.lua). Its name is that of the run,
-- this sign, which no key has, and the step's name.
local STEP_RUN = '\31'

local function is_step_run(member)
  return string.find(member, STEP_RUN, 1, true) ~= nil
end

-- Splits the name, or the record's key, of a step run: returns those of its run, and the step. Returns nil for a run.
local function owner_of(name)
  return string.match(name, '^([^' .. STEP_RUN .. ']*)' .. STEP_RUN .. '(.*)$')
end

-- The step runs of a status, which also stand among the runs of that status.
local function step_runs_of(status)
  return string.sub(jobs, 1, -1 - #'jobs') .. 'step_runs:' .. status
end

local function enter_pool(member, r)
  if is_step_run(member) then
    for _, status in ipairs(IN_POOL) do
      redis.call('ZREM', step_runs_of(status), member)
    end
    redis.call('ZADD', step_runs_of(r.status), 0, member)
  end
  local pool = pool_of(class_of(r))
  if pool then
    redis.call('SADD', pool_names(), pool)
    for _, status in ipairs(IN_POOL) do
      if r.status == status then
        redis.call('ZADD', pool_key(pool, status), 0, member)
      else
        redis.call('ZREM', pool_key(pool, status), member)
      end
    end
  end
end

-- Changes the status and the index of it.
local function become(member, r, status)
  redis.call('ZREM', with_status[r.status], member)
  redis.call('ZADD', with_status[status], 0, member)
  r.status = status
  enter_pool(member, r)
end

local function step_field(name)
  return STEP_FIELD .. name
end

local function is_step(field)
  return string.sub(field, 1, #STEP_FIELD) == STEP_FIELD
end

-- The letter of a step's state, by the value of its field; a missing field is a pending step.
local function letter_of(value)
  return value and string.sub(value, 1, 1) or LETTER.pending
end

local function items_field(step, number)
  return ITEMS_FIELD .. step .. ':' .. number
end

-- Returns how many chunks of items a step has, and their basis.
local function chunks_of(record, step)
  local line = redis.call('HGET', record, CHUNKS_FIELD .. step)
  local count, basis = string.match(line or '', '^(%d+) (.*)$')
  return tonumber(count) or 0, basis
end

-- Whether a field is about items of a step: of any, or of the one that is given.
local function is_items(field, step)
  local start, name = string.match(field, '^(' .. ITEMS_FIELD .. ')([^:]*)')
  if not start then
    start, name = string.match(field, '^(' .. CHUNKS_FIELD .. ')(.*)$')
  end
  return start ~= nil and (not step or name == step)
end

local function drop_items(record, step)
  local chunks, basis = chunks_of(record, step)
  if basis then
    for number = 1, chunks do
      redis.call('HDEL', record, items_field(step, number))
    end
    redis.call('HDEL', record, CHUNKS_FIELD .. step)
  end
end

-- Removes the fields of steps that were running, so that they read as pending again.
local function stop_steps(record)
  local owner, step = owner_of(record)
  if owner and letter_of(redis.call('HGET', owner, step_field(step))) == LETTER.running then
    redis.call('HDEL', owner, step_field(step))
    redis.call('HDEL', record, 'shown')
  end
  local fields = redis.call('HGETALL', record)
  for i = 1, #fields, 2 do
    if is_step(fields[i]) and letter_of(fields[i + 1]) == LETTER.running then
      redis.call('HDEL', record, fields[i])
    end
  end
end
