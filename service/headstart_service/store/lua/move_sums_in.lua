-- Adds sums of another partition's ledger to this one's, once for each `mark`.
-- Arguments after the named ones: name, number, name, number, …
-- Returns 1, or 0 when they had been added before.

local given = {...}
if redis.call('HSETNX', ledger, 'moved/' .. mark, 1) == 0 then
  return 0
end
for i = 1, #given, 2 do
  local name, value = given[i], given[i + 1]
  local book, sum = string.match(name, '^(%S+) (%S+)$')
  local had = redis.call('HGET', ledger, name)
  if sum == 'pipelines' then
    local known = had or ''
    for pipeline in string.gmatch(value, '%S+') do
      if not string.find(' ' .. known .. ' ', ' ' .. pipeline .. ' ', 1, true) then
        known = (known ~= '' and known .. ' ' or '') .. pipeline
      end
    end
    redis.call('HSET', ledger, name, known)
  elseif sum == 'since' then
    redis.call('HSET', ledger, name, integer(math.min(tonumber(had or value), tonumber(value))))
  elseif sum then
    redis.pcall('HINCRBY', ledger, name, value) -- refused where a damaged ledger holds no number
  end
  if sum == 'starts' and book ~= '*' and not had then
    redis.call('HINCRBY', ledger, 'namespaces', 1)
  end
end
return 1
