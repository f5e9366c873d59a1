-- Forgets a request if `owner` has it. Returns 1, or 0 if it is another's, or unknown.

local known = redis.call('HGET', requests, id)
if not known or not owns_message_batch(owner, known) then
  return 0
end
redis.call('HDEL', requests, id)
return 1
