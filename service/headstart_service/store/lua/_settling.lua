-- Steps that settle: a worker begins them once their inputs have been the same for a while, or a caller waits for them.
-- A record of a live run with such steps has the field `since`, "name=microseconds,…": when each step's digest first
-- appeared under the key. Its field `awaited` are the steps for which callers wait, "name,name", or '*' for all; so are those
-- of a run in progress for which a caller waits, or which a start joins, before the time by which it is needed.
local ALL_STEPS = '*'

-- Returns `since` of a new run, which replaces `old` if that is there; nil where no step settles. `wanted` has the digests.
local function since_of(record, old, wanted, settling, now)
  local digests, known, parts = {}, {}, {}
  if old and settling ~= '' then
    digests, known = pairs_of(old.steps), pairs_of(redis.call('HGET', record, 'since') or '')
  end
  for name in string.gmatch(settling, '[^,]+') do
    if wanted[name] then
      local same = is_of_digest(digests[name], wanted[name])
      parts[#parts + 1] = name .. '=' .. (same and (known[name] or integer(old.created)) or integer(now))
    end
  end
  return #parts > 0 and table.concat(parts, ',') or nil
end

-- Returns `awaited` of a new run: that of a live `old`, of steps with the same digests; nil if there is nothing.
local function still_awaited(record, old, wanted, names)
  local awaited = old and is_live(old.status) and redis.call('HGET', record, 'awaited')
  if not awaited then
    return nil
  end
  local digests, left = pairs_of(old.steps), {}
  local all = string.find(awaited, ALL_STEPS, 1, true)
  for _, name in ipairs(names) do
    if is_of_digest(digests[name], wanted[name]) and (all or string.find(',' .. awaited .. ',', ',' .. name .. ',', 1, true)) then
      left[#left + 1] = name
    end
  end
  return #left > 0 and table.concat(left, ',') or nil
end

-- The time by which a run in progress is needed, if that is later than now; else nil.
local function later_need(r)
  local score = r.status == 'in_progress' and string.match(redis.call('HGET', tickets, r.entry) or '', '^[^,]+')
  local need = score and need_of(tonumber(score))
  return need and need > clock() and need or nil
end

-- Notes that a caller waits for these steps, as far as they are `of` the run, and announces those that are new to the worker
-- of this record.
local function note_awaited(record, member, r, steps, of)
  local known = redis.call('HGET', record, 'awaited') or ''
  local awaited, news = known, {}
  for name in string.gmatch(steps, '[^,]+') do
    local there = string.find(',' .. awaited .. ',', ',' .. name .. ',', 1, true)
    if not there and (name == ALL_STEPS or string.find(',' .. of, ',' .. name .. '=', 1, true)) then
      awaited = awaited .. (awaited == '' and '' or ',') .. name
      news[#news + 1] = name
    end
  end
  if #news > 0 and not string.find(known, ALL_STEPS, 1, true) then
    redis.call('HSET', record, 'awaited', awaited)
    announce('awaited', r.run, table.concat(news, ','), member)
  end
end

-- Notes that a caller waits for these steps, if some of them settle, or if they were to be needed later.
local function ask(record, member, r, steps)
  if steps ~= '' and is_live(r.status) and (redis.call('HEXISTS', record, 'since') == 1 or later_need(r)) then
    note_awaited(record, member, r, steps, r.steps)
  end
end
