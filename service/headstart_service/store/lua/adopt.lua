-- Queues an unserved pending run by another plan of its inputs. It stays the same run in the same place of the queue,
-- with another definition; results of other definitions are removed.
-- Returns 1, or 0 when it is no unserved pending run any more.

local r = load(record)
if not r or r.run ~= run_id or r.status ~= 'pending' then
  return 0
end
local set, score = standing(member, r)
if set == waiting then
  return 0
end
local _, names = pairs_of(r.steps)
drop_step_runs(member, r.steps)
drop_steps(record, r, names)
r.definition, r.digest, r.steps, r.made = definition, digest, steps, '-'
redis.call('HSET', record, 'inputs', inputs)
unqueue(member)
r.entry = queue(member, r, score)
save(record, member, r)
announce('released', r.run, '-', member)
return 1
