-- One page of the runs whose member name lies in a range, in the order of their names.
-- Arguments after the named ones: the statuses wanted. It compares `most` runs at most. With a `pipeline` it returns
-- only runs of that.
-- Returns {more, last, compared, row, …}: 1 if the range may have more, the last name that it has compared or '', and how
-- many it has compared.
-- A row is {member, status, revision, pipeline, created, started, completed, expires, error, lacks, reason}, and
-- {member} alone where the record is damaged or gone. Returns 0 when more has expired than one call may sweep: call
-- again.

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

-- Expired runs are not listed.
local now = clock()
if sweep(now) == SWEEP then
  return 0
end
local lists, places = {}, {}
for _, status in ipairs({...}) do
  local found = redis.call('ZRANGEBYLEX', with_status[status], low, high, 'LIMIT', 0, most)
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

local page, compared, last, more = {}, 0, '', 1
while compared < tonumber(most) and #page < tonumber(limit) do
  local name = next_name()
  if not name then
    more = 0
    break
  end
  compared, last = compared + 1, name
  local whole, r
  if not is_step_run(name) then
    whole, r = pcall(load, record_prefix .. name)
  end
  if is_step_run(name) then
    -- no run that a caller has started
  elseif whole and r and pipeline ~= '' and r.pipeline ~= pipeline then
    -- another pipeline's
  elseif whole and r then
    page[#page + 1] = {name, r.status, r.revision, r.pipeline, integer(r.created), integer(r.started),
      integer(r.completed), integer(r.expires), r.error, lacks(r, now) or '', r.reason}
  else
    page[#page + 1] = {name}
  end
end
return {more, last, compared, unpack(page)}
