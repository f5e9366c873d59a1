-- Takes a delivered job's run for a worker: raises the attempt, which fences off every earlier
-- holder, and shows the run as in progress. A job that no longer fits its record is dropped; a run
-- whose workers were lost too often ends here. A run's last try is refused unless `alone` is 1.
-- Returns {} when there is nothing to do, {0} when the last try is refused, {0, 0} when it ended, else
-- {attempt, revision, pipeline, inputs, now, field, value, …} with the fields of the steps that have
-- ended, `trace` if the start was traced, and `fresh` if it was a restart. Repeating it with the same token changes nothing.

local owner = redis.call('XPENDING', jobs, group, entry, entry, 1)
if #owner == 0 or owner[1][2] ~= worker then
  return {}
end

local whole, r = pcall(load, record)
if not whole then
  drop_job(entry) -- else it would come back to one worker after the other
  damaged()
end
if not r or r.run ~= run_id or not is_live(r.status) then
  drop_job(entry)
  return {}
end

-- The answer to the same call was lost, or came too late, and this is its repetition: no worker was.
local repeated = r.status == 'in_progress' and redis.call('HGET', record, 'claim') == token

if r.tries >= tonumber(max_tries) and not repeated then
  drop_job(entry)
  end_run(record, member, r, 'failed', 'worker lost', tonumber(failure_ttl_us))
  return {0, 0}
end

if not repeated then
  if r.tries == tonumber(max_tries) - 1 and alone == '0' then
    return {0}
  end
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
  -- It may have waited for its turn nearly as long as a lease: the lease begins now.
  redis.call('XCLAIM', jobs, group, worker, 0, entry, 'JUSTID')
  save(record, member, r)
  announce('claimed', r.revision, '-', member)
end

local reply = {r.attempt, r.revision, r.pipeline, redis.call('HGET', record, 'inputs'), clock()}
local fields = redis.call('HGETALL', record)
for i = 1, #fields, 2 do
  if string.sub(fields[i], 1, 2) == 's:' or fields[i] == 'trace' or fields[i] == 'fresh' then
    reply[#reply + 1] = fields[i]
    reply[#reply + 1] = fields[i + 1]
  end
end
return reply
