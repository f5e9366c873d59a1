-- Takes a delivered job's run for a worker: raises the attempt, which fences off every earlier
-- holder, and shows the run as in progress. A job that no longer fits its record is dropped; a run
-- whose workers were lost too often ends here.
-- Returns {} when there is nothing to do, else {attempt, revision, pipeline, inputs, field, value, …}
-- with the fields of the steps that have ended.

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

if r.tries >= tonumber(max_tries) then
  drop_job(entry)
  end_run(record, member, r, 'failed', 'worker lost', tonumber(failure_ttl_us))
  return {}
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
save(record, member, r)
announce('claimed', r.revision, '-', member)

local reply = {r.attempt, r.revision, r.pipeline, redis.call('HGET', record, 'inputs')}
local fields = redis.call('HGETALL', record)
for i = 1, #fields, 2 do
  if string.sub(fields[i], 1, 2) == 's:' then
    reply[#reply + 1] = fields[i]
    reply[#reply + 1] = fields[i + 1]
  end
end
return reply
