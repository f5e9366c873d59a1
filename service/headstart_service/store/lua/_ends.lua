-- How fast runs end, for the delay of refused starts: the field ENDS_LATELY of `ledger` is "since window before now". The
-- last two numbers are runs that ended in the window before the present one, and in the present one; `window` is the
-- number of the present one. `since` is the time in microseconds of the first end after two windows without any: an
-- idle service has shown nothing of what it can do.
local ENDS_LATELY = 'ended'
local WINDOW_US = 5000000
-- A rate is measured over so long at least.
local LEAST_US = 1000000

-- Returns since, the window, and the runs that ended in the window before it and in it.
local function ends_lately(now)
  local window = math.floor(now / WINDOW_US)
  local line = redis.call('HGET', ledger, ENDS_LATELY) or ''
  local since, last, before, during = string.match(line, '^(%d+) (%d+) (%d+) (%d+)$')
  local passed = window - (tonumber(last) or 0)
  if passed == 0 then
    return tonumber(since), window, tonumber(before), tonumber(during)
  elseif passed == 1 then
    return tonumber(since), window, tonumber(during), 0
  end
  return now, window, 0, 0 -- idle, or the clock was set back
end

-- Counts a run that has ended.
local function count_end(now)
  local since, window, before, during = ends_lately(now)
  local line = string.format('%.0f %.0f %.0f %.0f', since, window, before, during + 1)
  redis.call('HSET', ledger, ENDS_LATELY, line)
end

-- Returns how many runs ended lately, and the microseconds in which they did.
local function ended_lately(now)
  local since, window, before, during = ends_lately(now)
  return before + during, math.max(now - math.max((window - 1) * WINDOW_US, since), LEAST_US)
end
