-- Takes a delivered job's run for a worker: raises the attempt, which fences off every earlier
-- holder, and shows the run as in progress. A job that no longer fits its record is dropped; a run
-- whose workers were lost too often ends here.
-- Returns {} when there is nothing to do, else {attempt, revision, pipeline, inputs, field, value, …}
-- with the fields of the steps that have ended.

local owner = redis.call('XPENDING', jobs, group, entry, entry, 1)
if #owner == 0 or owner[1][2] ~= worker then
  return {}
end

local now = clock()
local r = redis.call('HMGET', record, 'run', 'status', 'attempt', 'tries', 'revision', 'pipeline',
  'inputs', 'ttl', 'started')
local status = r[2]
if r[1] ~= run_id or not is_live(status) then
  drop_job(group, entry)
  return {}
end

if tonumber(r[4]) >= tonumber(max_tries) then
  drop_job(group, entry)
  end_run(record, member, status, 'failed', 'worker lost', now, tonumber(failure_ttl_us), channel, r[5])
  return {}
end

stop_steps(record)
local attempt = tonumber(r[3]) + 1
redis.call('HSET', record, 'status', 'in_progress', 'attempt', attempt, 'tries', tonumber(r[4]) + 1,
  'entry', entry)
if not r[9] then
  redis.call('HSET', record, 'started', integer(now))
end
if status == 'pending' then
  move(member, 'pending', 'in_progress')
end
expire_at(record, member, now + math.max(tonumber(r[8]), tonumber(patience_us)))
announce(channel, 'claimed', r[5], '-', member)

local reply = {attempt, tonumber(r[5]), r[6], r[7]}
local fields = redis.call('HGETALL', record)
for i = 1, #fields, 2 do
  if string.sub(fields[i], 1, 2) == 's:' then
    reply[#reply + 1] = fields[i]
    reply[#reply + 1] = fields[i + 1]
  end
end
return reply
