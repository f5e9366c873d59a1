-- Keeps items of a step that runs for each item of a list: those that ended since the last call, as chunk `number`. Shows
-- how far the step is. Items that were kept with another `basis` go: they were made of something else.
-- A step run keeps them in the record of its run.
-- Returns 1; 2 when the step has ended, because a caller has reported it; 0 when the lease no longer holds. Repeating it
-- changes nothing.

local r = load(record)
if not r or r.run ~= run_id or r.attempt ~= tonumber(attempt) or r.status ~= 'in_progress' then
  return 0
end
redis.call('HDEL', record, 'claim')
local of = member
if is_step_run(member) then
  local name, owner, theirs = owner_that_waits(member, record)
  if not name then
    return 0
  end
  redis.call('HSET', record, 'shown', report)
  of, record, r = name, owner, theirs
end
if STEP_ENDED[letter_of(redis.call('HGET', record, step_field(step)))] then
  return 2
end
local chunks, before = chunks_of(record, step)
if before ~= basis then
  drop_items(record, step)
  chunks = 0
end
if #items > 0 then
  chunks = math.max(chunks, tonumber(number))
  redis.call('HSET', record, items_field(step, integer(number)), items)
end
redis.call('HSET', record, CHUNKS_FIELD .. step, integer(chunks) .. ' ' .. basis, step_field(step), report)
announce('step', r.run, '-', of)
return 1
