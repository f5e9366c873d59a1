-- Gives `owner` the oldest request that was handed in and has lost its owner: one that is free, or of an earlier claim
-- of the same run, or of another run of the key. Without one, notes the request `id` as about to be handed in, if
-- `create` is '1'. A request whose owner was lost before its batch was known is forgotten.
-- `requests` is a hash: id -> see `read_message_batch`. Returns {id, batch}; nil for none.

local run, attempt = string.match(owner, '^(%S*) (%d+)$')
local found, batch, oldest
local all = redis.call('HGETALL', requests)
for i = 1, #all, 2 do
  local r = read_message_batch(all[i + 1])
  local lost = r.run ~= run or r.attempt < tonumber(attempt)
  if lost and r.batch == '' then
    redis.call('HDEL', requests, all[i])
  elseif lost and (not oldest or r.created < oldest) then
    found, batch, oldest = all[i], r.batch, r.created
  end
end
if not found then
  if create ~= '1' then
    return nil
  end
  found, batch, oldest = id, '', clock()
end
redis.call('HSET', requests, found, write_message_batch(owner, oldest, batch))
redis.call('PEXPIRE', requests, ttl_ms)
return {found, batch}
