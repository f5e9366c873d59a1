-- Takes a delivered job's run for a worker: raises the attempt, which fences off every earlier
-- holder, and shows the run as in progress. A job that no longer fits its record is dropped; a run
-- whose workers were lost too often ends here. A run's last try is refused unless `may_be_last` is 1:
-- the job then counts as lost again, and waits for a worker that has no other such run.
-- Returns {} when there is nothing to do, else {attempt, revision, 1 or 0 (it is the last try),
-- pipeline, inputs, field, value, …} with the fields of the steps that have ended. Repeating it with
-- the same token changes nothing.

local owner = redis.call('XPENDING', jobs, group, entry, entry, 1)
if #owner == 0 or owner[1][2] ~= worker then
  return {}
end

local r = load(record)
if not r or r.run ~= run_id or not is_live(r.status) then
  drop_job(entry)
  return {}
end

-- The answer to the same call was lost, or came too late, and this is its repetition: no worker was.
local repeated = r.status == 'in_progress' and redis.call('HGET', record, 'claim') == token
local tries = repeated and r.tries - 1 or r.tries
local last = tries == tonumber(max_tries) - 1

if tries >= tonumber(max_tries) then
  drop_job(entry)
  end_run(record, member, r, 'failed', 'worker lost', tonumber(failure_ttl_us))
  return {}
end

if last and may_be_last == '0' and not repeated then
  redis.call('XCLAIM', jobs, group, worker, 0, entry, 'IDLE', lease_ms, 'JUSTID')
  return {}
end

if not repeated then
  stop_steps(record)
  local now = clock()
  r.attempt, r.tries, r.entry = r.attempt + 1, r.tries + 1, entry
  if r.started == 0 then
    r.started = now
  end
  if r.status == 'pending' then
    become(member, r, 'in_progress')
  end
  r.expires = now + math.max(r.ttl, tonumber(patience_us))
  redis.call('HSET', record, 'claim', token)
  save(record, member, r)
  announce('claimed', r.revision, '-', member)
end

local reply = {r.attempt, r.revision, last and 1 or 0, r.pipeline, redis.call('HGET', record, 'inputs')}
local fields = redis.call('HGETALL', record)
for i = 1, #fields, 2 do
  if string.sub(fields[i], 1, 2) == 's:' then
    reply[#reply + 1] = fields[i]
    reply[#reply + 1] = fields[i + 1]
  end
end
return reply
