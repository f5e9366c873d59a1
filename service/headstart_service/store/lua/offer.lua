-- Notes a worker's offers for `ttl_us` from now: "class makers" for each of its pipelines.
-- Returns how many runs were left for workers with such offers.

note_offers(worker, offering, tonumber(ttl_us), clock())
local left = 0
for class in string.gmatch(offering, '(%S+) %S+') do
  if redis.call('HEXISTS', unserved, class) == 1 then
    left = left + redis.call('ZCARD', unserved_of(class))
  end
end
return left
