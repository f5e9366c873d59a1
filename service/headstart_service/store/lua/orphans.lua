-- Notes which classes of runs an API process starts (`classes`, between blanks), for `ttl_us` from now, and
-- finds orphans, which a rolling update leaves behind. They are pending runs of a class that no worker offers and no API
-- process starts, while workers offer their pipeline with the definition that this process starts.
-- Returns {member, run, pipeline, inputs} of up to `limit` runs of each class.

local now = clock()
note_clock(now)
redis.call('HSET', starters, process, integer(now + tonumber(ttl_us)) .. ' ' .. classes)
local served, startable = {}, {}
local known = redis.call('HGETALL', starters)
for i = 1, #known, 2 do
  local till, started = string.match(known[i + 1], '^(%d+) (.*)$')
  if not till or tonumber(till) <= now then
    redis.call('HDEL', starters, known[i])
  else
    for class in string.gmatch(started, '%S+') do
      served[class] = true
    end
  end
end
for till, class in string.gmatch(every_offer(), '(%d+) (%S+) %S+') do
  if tonumber(till) > now then
    served[class] = true
    if string.find(' ' .. classes .. ' ', ' ' .. class .. ' ', 1, true) then
      startable[string.match(class, '^[^@]*')] = true
    end
  end
end
local reply = {}
for _, class in ipairs(redis.call('HKEYS', unserved)) do
  if not served[class] and startable[string.match(class, '^[^@]*')] then
    for _, name in ipairs(redis.call('ZRANGE', unserved_of(class), 0, tonumber(limit) - 1)) do
      local whole, r = pcall(load, record_prefix .. name)
      local inputs = whole and redis.call('HGET', record_prefix .. name, 'inputs')
      if r and inputs and not is_step_run(name) then
        reply[#reply + 1] = {name, r.run, r.pipeline, inputs}
      end
    end
  end
end
return reply
