-- One page of the runs whose member name lies in a range, in the order of their names.
-- Arguments after the named ones: the statuses wanted.
-- Returns {member, status, revision, pipeline, created, started, completed, expires, error} per run.

-- By bytes, as ZRANGEBYLEX orders; Lua's own `<` follows the server's locale.
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
while sweep(clock(), 1000) == 1000 do end
local found = {}
for _, status in ipairs({...}) do
  local set = with_status[status]
  for _, member in ipairs(redis.call('ZRANGEBYLEX', set, low, high, 'LIMIT', 0, limit)) do
    found[#found + 1] = member
  end
end
table.sort(found, before)
local page = {}
for i = 1, math.min(#found, tonumber(limit)) do
  local whole, r = pcall(load, record_prefix .. found[i])
  if whole and r then
    page[#page + 1] = {found[i], r.status, r.revision, r.pipeline, integer(r.created), integer(r.started),
      integer(r.completed), integer(r.expires), r.error}
  end
end
return page
