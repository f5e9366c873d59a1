-- Returns what the next revision keeps of a run `old`: `steps`, the fields and values of those with the same digest in
-- `wanted`, if a worker with an offer that was `found` makes them alike; their `names`, as keys; and `items`, the fields
-- of items that have ended of other such steps: the worker takes those that its own are equal to. Then returns the
-- makers of all these steps. Nothing is kept without an `old`.
local function kept_of(old, record, wanted, names, found)
  local kept, made = {steps = {}, names = {}, items = {}}, {}
  if not old then
    return kept, made
  end
  local digests, old_made = pairs_of(old.steps), made_of(old)
  for _, name in ipairs(names) do
    if digests[name] == wanted[name] and makes_step(found, name, old_made) then
      local value = redis.call('HGET', record, step_field(name))
      local chunks, basis = chunks_of(record, name)
      if letter_of(value) == LETTER.completed then
        kept.steps[#kept.steps + 1] = step_field(name)
        kept.steps[#kept.steps + 1] = value
        kept.names[name] = true
        made[name] = old_made[name]
      elseif basis then
        kept.items[CHUNKS_FIELD .. name] = integer(chunks) .. ' ' .. basis
        for number = 1, chunks do
          local field = items_field(name, number)
          kept.items[field] = redis.call('HGET', record, field) or nil
        end
        made[name] = old_made[name]
      end
    end
  end
  return kept, made
end
