-- Notes the batch of a request, and its owner from now on, if `owner` has it still. A request that Redis has lost is
-- noted anew. Returns 1, or 0 if it is another's.

local created = clock()
local known = redis.call('HGET', requests, id)
if known then
  if not owns_message_batch(owner, known) then
    return 0
  end
  created = read_message_batch(known).created
end
redis.call('HSET', requests, id, write_message_batch(next_owner, created, batch))
redis.call('PEXPIRE', requests, ttl_ms)
return 1
