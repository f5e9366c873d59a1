-- Partial results: a hash for each run with steps that stream, which lives as long as the run's record. It has these
-- fields:
--   <step>            "run holder trial generation length form" of the step's latest beginning
--   <step>:<number>   its bytes, PIECE in each field but the last
-- A run's id, its holder and the worker's trial name a beginning. The holder is the run's attempt; of a step run, which
-- writes into the hash of its run, it is "id/attempt" of the step run. The `generation` is the time when the beginning
-- came, in microseconds, so that no two of a key are the same, whatever was lost between.

-- Rewriting a field's end costs as much as its size, and each field takes some 50 bytes.
local PIECE = 4096

local function partials_of(member)
  return string.sub(jobs, 1, -1 - #'jobs') .. 'partial:' .. member
end

local function decode_partial(line)
  local run, holder, trial, generation, length, form =
    string.match(line or '', '^(%S+) (%S+) (%d+) (%d+) (%d+) (%a+)$')
  if not run then
    return nil
  end
  return {
    run = run, holder = holder, trial = tonumber(trial), generation = tonumber(generation),
    length = tonumber(length), form = form,
  }
end

local function encode_partial(p)
  return string.format('%s %s %.0f %.0f %.0f %s', p.run, p.holder, p.trial, p.generation, p.length, p.form)
end

-- Removes the bytes of a step's beginning.
local function remove_pieces(partials, step, p)
  for i = 0, math.floor(p.length / PIECE) do
    redis.call('HDEL', partials, step .. ':' .. i)
  end
end

-- Hands what the steps that are `going_on` have given on to the run with this id, and removes what others of the `steps`
-- have.
local function hand_on_partials(member, steps, run, going_on)
  local partials = partials_of(member)
  for _, step in ipairs(steps) do
    local p = decode_partial(redis.call('HGET', partials, step))
    if p and going_on[step] then
      p.run = run
      redis.call('HSET', partials, step, encode_partial(p))
    elseif p then
      remove_pieces(partials, step, p)
      redis.call('HDEL', partials, step)
    end
  end
end
