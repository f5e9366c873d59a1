-- Ends a run that has not ended, as cancelled; its worker's late writes are refused.
-- Returns {1 or 0 (it had ended before), status, revision}, or {} for an unknown key.

local now = clock()
local r = redis.call('HMGET', record, 'status', 'revision', 'expires', 'entry')
if not r[1] or tonumber(r[3]) <= now then
  return {}
end
if not is_live(r[1]) then
  return {0, r[1], tonumber(r[2])}
end
if r[1] == 'in_progress' then
  drop_job(group, r[4])
end
end_run(record, member, r[1], 'cancelled', 'cancelled by the caller', now, tonumber(failure_ttl_us), channel, r[2])
return {1, 'cancelled', tonumber(r[2])}
