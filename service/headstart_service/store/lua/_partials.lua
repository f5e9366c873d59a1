-- Partial results: a hash for each run with steps that stream, which lives as long as the run's record. It has these
-- fields:
--   <step>            "run attempt trial generation length form" of the step's latest beginning
--   <step>:<number>   its bytes, PIECE in each field but the last
-- A run's id, its attempt and the worker's trial name a beginning. Its `generation` is the time when it came, in
-- microseconds, so that no two of a key are the same, whatever was lost between.

-- Rewriting a field's end costs as much as its size, and each field takes some 50 bytes.
local PIECE = 4096

local function partials_of(member)
  return string.sub(jobs, 1, -1 - #'jobs') .. 'partial:' .. member
end

local function decode_partial(line)
  local run, attempt, trial, generation, length, form =
    string.match(line or '', '^(%S+) (%d+) (%d+) (%d+) (%d+) (%a+)$')
  if not run then
    return nil
  end
  return {
    run = run, attempt = tonumber(attempt), trial = tonumber(trial), generation = tonumber(generation),
    length = tonumber(length), form = form,
  }
end

local function encode_partial(p)
  return string.format('%s %.0f %.0f %.0f %.0f %s', p.run, p.attempt, p.trial, p.generation, p.length, p.form)
end
