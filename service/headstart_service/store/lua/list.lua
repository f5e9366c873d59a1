-- One page of the runs whose member name lies in a range, in the order of their names.
-- Arguments after the named ones: the statuses wanted.
-- Returns {status, member, revision, pipeline, created, started, completed, expires, error} per run.

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
while sweep(record_prefix, clock(), 1000) == 1000 do end
local found = {}
for i = first_extra, #ARGV do
  local set = with_status[ARGV[i]]
  for _, member in ipairs(redis.call('ZRANGEBYLEX', set, low, high, 'LIMIT', 0, limit)) do
    found[#found + 1] = member
  end
end
table.sort(found, before)
local page = {}
for i = 1, math.min(#found, tonumber(limit)) do
  local r = redis.call('HMGET', record_prefix .. found[i], 'status', 'revision', 'pipeline', 'created',
    'started', 'completed', 'expires', 'error')
  if r[1] then
    page[#page + 1] = {r[1], found[i], r[2], r[3], r[4], r[5] or '0', r[6] or '0', r[7], r[8] or ''}
  end
end
return page
