-- The ledger counts the fate of every started run's work, once (docs/decisions/0031).
--
-- Until the fate is known, `unsettled` has the run's line: when the run was first read, and the costs of each ended
-- step that no caller has read. The line is a series of numbers, seven bits a byte, the lowest first, with 128
-- added to each byte but a number's last. The first number is twice the time of the first read in microseconds,
-- or 0, plus 1 once a step was used. Then each step has four: its place in the run's `steps`, microseconds, CPU
-- microseconds and tokens.
--
-- `ledger` has the sums: fields "* <sum>" for all namespaces, and "<namespace> <sum>" for each of the first BOOKS
-- namespaces that had a run.
local BOOKS = 1000
local OPEN = string.char(0)
local USED = {used_ready = true, used_waited = true}
-- A run that ended by itself counts by its end, even if some of its steps were used before.
local ENDS = {failed = true, cancelled = true}

local function packed(...)
  local bytes = {}
  for _, number in ipairs({...}) do
    while number >= 128 do
      bytes[#bytes + 1] = string.char(number % 128 + 128)
      number = math.floor(number / 128)
    end
    bytes[#bytes + 1] = string.char(number)
  end
  return table.concat(bytes)
end

-- Returns a line's numbers; an empty table for a missing line.
local function unpacked(line)
  local numbers, number, scale = {}, 0, 1
  for i = 1, #line do
    local byte = string.byte(line, i)
    number = number + byte % 128 * scale
    scale = scale * 128
    if byte < 128 then
      numbers[#numbers + 1], number, scale = number, 0, 1
    end
  end
  return numbers
end

local function has_book(namespace)
  return redis.call('HEXISTS', ledger, namespace .. ' starts') == 1
end

-- Adds to the sums of all namespaces and, if it has a book, to those of the member's namespace. `own` is whether it
-- has one, where that is known.
local function enter(member, sums, own)
  local namespace = string.match(member, '^[^:]*')
  if own == nil then
    own = has_book(namespace)
  end
  for name, by in pairs(sums) do
    if by > 0 then
      redis.call('HINCRBY', ledger, '* ' .. name, integer(by))
      if own then
        redis.call('HINCRBY', ledger, namespace .. ' ' .. name, integer(by))
      end
    end
  end
end

-- Adds a step and its cost to `sums` under this fate.
local function count_step(sums, fate, compute, cpu, tokens)
  for name, by in pairs({steps = 1, compute_us = compute, cpu_us = cpu, llm_tokens = tokens}) do
    name = fate .. '.' .. name
    sums[name] = (sums[name] or 0) + by
  end
end

-- Closes the line of a run, if it is open, and counts the run and its steps' work under this fate. The work of steps
-- whose places are in `kept` belongs to another run from now on.
local function settle(member, fate, kept, sums)
  local line = redis.call('HGET', unsettled, member)
  if not line then
    return false
  end
  sums = sums or {}
  local numbers = unpacked(line)
  local used = (numbers[1] or 0) % 2 == 1 and not ENDS[fate] and not USED[fate]
  sums[(used and 'used_waited' or fate) .. '.runs'] = 1
  for i = 2, #numbers - 3, 4 do
    if not (kept and kept[numbers[i]]) then
      count_step(sums, fate, numbers[i + 1], numbers[i + 2], numbers[i + 3])
    end
  end
  redis.call('HDEL', unsettled, member)
  enter(member, sums)
  return true
end

-- Begins the sums of the member's namespace if they are missing and it is among the first BOOKS. Returns whether it has
-- sums now.
local function open_book(member)
  local namespace = string.match(member, '^[^:]*')
  if has_book(namespace) then
    return true
  end
  local now = integer(clock())
  redis.call('HSETNX', ledger, '* since', now)
  if redis.call('HINCRBY', ledger, 'namespaces', 1) <= BOOKS then
    redis.call('HSET', ledger, namespace .. ' starts', 0, namespace .. ' since', now)
    return true
  end
  redis.call('HINCRBY', ledger, 'namespaces', -1)
  return false
end

-- Opens the line of a new run, with the steps that it took over from the run before it.
local function open_line(member, carried)
  redis.call('HSET', unsettled, member, OPEN .. (carried or ''))
  enter(member, {starts = 1}, open_book(member))
end

-- Maps each step's name to its place in the run's `steps`.
local function places(steps)
  local found, number = {}, 0
  for name in string.gmatch(steps, '([^=,]+)=[^,]+') do
    number = number + 1
    found[name] = number
  end
  return found
end

-- Adds the work of ended steps to the run's line, before the record shows their end. A step that has ended in the
-- record is a repetition and not added. The work of a failed step counts as failed at once: it has no user.
-- `work` is "name letter microseconds cpu-microseconds tokens" joined by commas.
local function note_work(record, member, r, work)
  local line = work ~= '' and redis.call('HGET', unsettled, member)
  if not line then
    return
  end
  local added, sums, place = {}, {}, places(r.steps)
  for name, letter, compute, cpu, tokens in string.gmatch(work, '([^ ,]+) (%a) (%d+) (%d+) (%d+)') do
    local had = letter_of(redis.call('HGET', record, step_field(name)))
    compute, cpu, tokens = tonumber(compute), tonumber(cpu), tonumber(tokens)
    if had == LETTER.completed or had == LETTER.failed then
      place[name] = nil
    elseif letter == LETTER.failed then
      count_step(sums, 'failed', compute, cpu, tokens)
    elseif place[name] then
      added[#added + 1] = packed(place[name], compute, cpu, tokens)
    end
  end
  if #added > 0 then
    redis.call('HSET', unsettled, member, line .. table.concat(added))
  end
  enter(member, sums)
end

-- Counts a caller's read of the run. Steps that have ended are used: ready if they ended before the first read, else
-- waited for. Computing time before the first read was hidden from users. A caller that came before the end counts
-- as waiting until the end, so the hidden time is a lower bound and never negative.
local function note_read(member, r)
  local line = redis.call('HGET', unsettled, member)
  if not line then
    return
  end
  local numbers, now, sums = unpacked(line), clock(), {}
  local first = math.floor((numbers[1] or 0) / 2)
  local fate = first == 0 and 'used_ready' or 'used_waited'
  if is_live(r.status) then
    if first > 0 and #numbers < 2 then
      return
    end
    for i = 2, #numbers - 3, 4 do
      count_step(sums, fate, numbers[i + 1], numbers[i + 2], numbers[i + 3])
    end
    local used = (#numbers > 1 or (numbers[1] or 0) % 2 == 1) and 1 or 0
    redis.call('HSET', unsettled, member, packed((first > 0 and first or now) * 2 + used))
    enter(member, sums)
    return
  end
  local came = first == 0 and r.completed or math.min(first, r.completed)
  local hidden = r.started > 0 and math.max(0, came - r.started) or 0
  sums['hidden_us'], sums['hidden_us/' .. r.pipeline] = hidden, hidden
  sums['hidden_runs/' .. r.pipeline], sums['waited_us'] = 1, r.completed - came
  for _, book in ipairs({'*', string.match(member, '^[^:]*')}) do
    local known = redis.call('HGET', ledger, book .. ' pipelines')
    if not string.find(' ' .. (known or '') .. ' ', ' ' .. r.pipeline .. ' ', 1, true)
        and redis.call('HEXISTS', ledger, book .. ' starts') == 1 then
      redis.call('HSET', ledger, book .. ' pipelines', (known and known .. ' ' or '') .. r.pipeline)
    end
  end
  settle(member, fate, nil, sums)
end
