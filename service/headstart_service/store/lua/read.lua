-- Reads a run with every fragment that exists, in one atomic look, and, with `mark`, notes that
-- its result was read once it has ended: read results are evicted first.
-- Returns {} for an unknown key, else {status, revision, pipeline, steps, created, started, completed,
-- expires, error, now, states, body} where states is "name=letter" joined by commas.

local now = clock()
local fields = redis.call('HGETALL', record)
if #fields == 0 then
  return {}
end
local meta, states, parts = {}, {}, {}
for i = 1, #fields, 2 do
  local name, value = fields[i], fields[i + 1]
  if string.sub(name, 1, 2) == 's:' then
    states[#states + 1] = string.sub(name, 3) .. '=' .. string.sub(value, 1, 1)
    if mark ~= 'status' then
      parts[#parts + 1] = string.sub(value, 2)
    end
  else
    meta[name] = value
  end
end
if tonumber(meta.expires) <= now then
  return {}
end
if mark == 'read' and not meta.read and not is_live(meta.status) then
  redis.call('HSET', record, 'read', '1')
  redis.call('ZREM', unread, member)
  redis.call('ZADD', read, meta.completed, member)
end
return {
  meta.status, meta.revision, meta.pipeline, meta.steps, meta.created, meta.started or '0',
  meta.completed or '0', meta.expires, meta.error or '', integer(now), table.concat(states, ','),
  table.concat(parts),
}
