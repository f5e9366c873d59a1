-- Reads the descriptions of up to `limit` workers that are not overdue.
-- Returns {about, about, …}.

local now = clock()
local crew = {}
local known = redis.call('HVALS', roster)
for i = 1, #known do
  local until_us, about = string.match(known[i], '^(%d+) (.*)$')
  if until_us and tonumber(until_us) > now and #crew < tonumber(limit) then
    crew[#crew + 1] = about
  end
end
return crew
