-- Reads the descriptions of up to `limit` workers that are not overdue.
-- Returns {about, about, …}.

local now = clock()
local workers = {}
local known = redis.call('HVALS', registry)
for i = 1, #known do
  local until_us, about = string.match(known[i], '^(%d+) (.*)$')
  if until_us and tonumber(until_us) > now and #workers < tonumber(limit) then
    workers[#workers + 1] = about
  end
end
return workers
