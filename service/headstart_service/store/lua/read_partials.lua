-- Reads what steps that stream have given beyond cursors. `...`: step, generation and offset of each cursor.
-- With `follow` 1, what a run that has not ended gives from now on is announced to the `process`.
-- Returns {} for an unknown key, else {run, step, form, generation, offset, length, bytes, step, …}. A step without news
-- is left out. A step's bytes may stop before `length`: at most `most` are read of all. With a `tail` above 0 only so
-- many of a step's last bytes are read.

local r = load(record)
if not r or r.expires <= clock() then
  return {}
end
if follow == '1' and is_live(r.status) then
  send_to(record, process, 4)
end
local given, cursors = {...}, {}
for i = 1, #given, 3 do
  cursors[given[i]] = {tonumber(given[i + 1]), tonumber(given[i + 2])}
end
local partials = partials_of(member)
local names, reply = {}, {r.run}
if redis.call('EXISTS', partials) == 0 then
  return reply
end
for name in string.gmatch(r.steps, '([^=,]+)=') do
  names[#names + 1] = name
end
local lines = redis.call('HMGET', partials, unpack(names))
local left = tonumber(most)
for i, name in ipairs(names) do
  local p = decode_partial(lines[i])
  if p and p.run == r.run then
    local cursor = cursors[name] or {0, 0}
    local same = cursor[1] == p.generation and cursor[2] <= p.length
    local offset = same and cursor[2] or 0
    if tonumber(tail) > 0 then
      offset = math.max(offset, p.length - tonumber(tail))
    end
    if offset < p.length or not same then
      local first, last = math.floor(offset / PIECE), math.floor((p.length - 1) / PIECE)
      last = math.min(last, first + math.floor(left / PIECE))
      local pieces = {}
      for number = first, last do
        pieces[#pieces + 1] = redis.call('HGET', partials, name .. ':' .. number) or ''
      end
      local bytes = string.sub(table.concat(pieces), offset - first * PIECE + 1)
      left = math.max(0, left - #bytes)
      for _, value in ipairs({name, p.form, integer(p.generation), integer(offset), integer(p.length), bytes}) do
        reply[#reply + 1] = value
      end
    end
  end
end
return reply
