-- How fast runs end, for the delay of refused starts: the field ENDS_LATELY of `ledger` is "since window before now". The
-- last two numbers are runs that ended in the window before the present one, and in the present one; `window` is the
-- number of the present one. `since` is the time in microseconds of the first start or end after two windows without
-- any: an idle service has shown nothing of what it can do.
local ENDS_LATELY = 'ended'
local WINDOW_US = 5000000
-- A rate is measured over so long at least.
local LEAST_US = 1000000

-- Returns since, the present window, the runs that ended in the window before it and in it, and how many windows have
-- passed since the line was written; below 0 after the clock was set back.
local function ends_lately(now)
  local window = math.floor(now / WINDOW_US)
  local line = redis.call('HGET', ledger, ENDS_LATELY) or ''
  local since, last, before, during = string.match(line, '^(%d+) (%d+) (%d+) (%d+)$')
  local passed = window - (tonumber(last) or 0)
  if passed == 0 then
    return tonumber(since), window, tonumber(before), tonumber(during), passed
  elseif passed == 1 then
    return tonumber(since), window, tonumber(during), 0, passed
  end
  return tonumber(since) or now, window, 0, 0, passed
end

-- Counts `ended` runs that have ended; with 0 notes that a run has started.
local function count_ends(now, ended)
  local since, window, before, during, passed = ends_lately(now)
  if passed < 0 or passed > 2 then
    since = now
  end
  if ended > 0 or passed ~= 0 then
    local line = string.format('%.0f %.0f %.0f %.0f', since, window, before, during + ended)
    redis.call('HSET', ledger, ENDS_LATELY, line)
  end
end

-- Returns how many runs ended lately, and the microseconds in which they did.
local function ended_lately(now)
  local since, window, before, during, passed = ends_lately(now)
  if passed < 0 then
    since = 0
  end
  return before + during, math.max(now - math.max((window - 1) * WINDOW_US, since), LEAST_US)
end
