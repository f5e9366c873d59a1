-- One page of the runs whose member name lies in a range, in the order of their names.
-- Arguments after the named ones: the statuses wanted.
-- Returns {member, status, revision, pipeline, created, started, completed, expires, error, lacks, reason} per run, and
-- {member} alone where the record is damaged or gone, so that no page but the last is short. Returns 0 when
-- more has expired than one call may sweep: call again.

-- Compares by bytes, in ZRANGEBYLEX's order; Lua's own `<` follows the server's locale.
local function before(a, b)
  for i = 1, math.min(#a, #b) do
    local x, y = string.byte(a, i), string.byte(b, i)
    if x ~= y then
      return x < y
    end
  end
  return #a < #b
end

-- All of them: a page that comes out short for what has expired would look like the last one.
local now = clock()
if sweep(now) == SWEEP then
  return 0
end
local lists, places = {}, {}
for _, status in ipairs({...}) do
  local found = redis.call('ZRANGEBYLEX', with_status[status], low, high, 'LIMIT', 0, limit)
  if #found > 0 then
    lists[#lists + 1], places[#places + 1] = found, 1
  end
end

-- The next name of the lists, each of which is in order; nil behind the last.
local function next_name()
  local first
  for i, found in ipairs(lists) do
    local candidate = found[places[i]]
    if candidate and (not first or before(candidate, lists[first][places[first]])) then
      first = i
    end
  end
  if first then
    places[first] = places[first] + 1
    return lists[first][places[first] - 1]
  end
end

local page = {}
for _ = 1, tonumber(limit) do
  local name = next_name()
  if not name then
    break
  end
  local whole, r = pcall(load, record_prefix .. name)
  if whole and r then
    page[#page + 1] = {name, r.status, r.revision, r.pipeline, integer(r.created), integer(r.started),
      integer(r.completed), integer(r.expires), r.error, lacks(r, now) or '', r.reason}
  else
    page[#page + 1] = {name}
  end
end
return page
