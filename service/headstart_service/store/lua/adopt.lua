-- Queues a pending run that nobody serves by another plan of its inputs: it is the same run, in its place in
-- the queue, of another definition. What other definitions have made of it goes.
-- Returns 1, or 0 when it is not such a run any more.

local r = load(record)
if not r or r.run ~= run_id or r.status ~= 'pending' then
  return 0
end
local set, score = standing(member, r)
if set == waiting then
  return 0
end
local _, names = pairs_of(r.steps)
drop_steps(record, r, names)
r.definition, r.digest, r.steps, r.made = definition, digest, steps, '-'
redis.call('HSET', record, 'inputs', inputs)
unqueue(member)
r.entry = queue(member, r.run, score)
save(record, member, r)
announce('released', r.run, '-', member)
return 1
