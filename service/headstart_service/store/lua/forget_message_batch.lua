-- Forgets a request if `owner` has it. Returns 1, or 0 if it is another's, or unknown.

local known = redis.call('HGET', requests, id)
if not known then
  return 0
end
local r = read_message_batch(known)
if r.run .. ' ' .. integer(r.attempt) ~= owner then
  return 0
end
redis.call('HDEL', requests, id)
return 1
