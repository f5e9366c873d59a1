-- Shared by every script and put in front of each. A script is the body of a function that is called
-- with `record` and `member`, the key and the name of the run it is about, its own arguments by name,
-- and the rest as `...`. KEYS start with the partition's fixed keys, in the order of keys.FIXED.

local jobs, expiry, unread, read = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local with_status = {
  pending = KEYS[5], in_progress = KEYS[6], completed = KEYS[7], failed = KEYS[8], cancelled = KEYS[9],
}
local waiting, tickets, ledger, unsettled = KEYS[10], KEYS[11], KEYS[12], KEYS[13]
local unserved, offers, starters, layout = KEYS[14], KEYS[15], KEYS[16], KEYS[17]
local channel, record_prefix, group = ARGV[1], ARGV[2], ARGV[3]

-- Microseconds since the epoch, by this server's clock. A double holds them exactly until 2255.
local function clock()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000000 + tonumber(time[2])
end

local function integer(number)
  return string.format('%.0f', number)
end

local function is_live(status)
  return status == 'pending' or status == 'in_progress'
end

-- Announces what has happened to a run: `run` is its id, '-' if that is not known. `what` are the steps
-- that have ended, of 'started' the id of the run that it replaces, and '-' for neither.
local function announce(kind, run, what, member)
  redis.call('PUBLISH', channel, kind .. ' ' .. run .. ' ' .. what .. ' ' .. member)
end

-- A record is a hash. Its small fields are one line of text, `about`, because Redis needs 50 bytes for
-- each field of its own; beside it are `inputs` until the run has ended, the trace context of its start
-- (`trace`) as long, if that was traced, `fresh` as long, if it was a restart, the token of the last
-- `claim` until its first commit, and a field for each step that runs or has ended: "s:<name>", the letter of
-- its state and its piece of the response. `request` is "outcome revision request-id" of the start that made
-- the run, if that start had a request id.
--
-- The fields of `about`: numbers are 0, and texts are '-', where there is nothing. Times are in
-- microseconds. `run` is the run's id, which its start made and no other start repeats, whatever the
-- store has lost. `seen` is 1 once the run was read after it had ended. `definition` is that of the
-- pipeline, and `made` has what made each step, in the order of `steps`. `error` is last, since it alone
-- may hold spaces.
local ABOUT = '^(%S+) (%d+) (%d+) (%d+) (%S+) (%S+) ' .. string.rep('(%d+) ', 6)
  .. '([%w._-]+) ([%w_-]+) (%S+) (%S+) (%S+) (.*)$'
-- What a double holds exactly. More would be written back as another number, or as none at all.
local LARGEST = 2 ^ 53

-- The whole transition's end, before it has written anything: others may have got at the record.
local function damaged()
  error({err = 'DAMAGED the record is not one of ours'})
end

local function load(record)
  local text = redis.pcall('HGET', record, 'about')
  if not text then
    if redis.call('EXISTS', record) == 1 then
      damaged()
    end
    return nil
  elseif type(text) == 'table' then -- the key is of another type
    damaged()
  end
  local r = {}
  local revision, attempt, tries, ttl, created, started, completed, expires, seen
  r.status, revision, attempt, tries, r.run, r.entry, ttl, created, started, completed, expires, seen,
    r.pipeline, r.definition, r.digest, r.steps, r.made, r.error = string.match(text, ABOUT)
  r.revision, r.attempt, r.tries, r.ttl = tonumber(revision), tonumber(attempt), tonumber(tries), tonumber(ttl)
  r.created, r.started, r.completed = tonumber(created), tonumber(started), tonumber(completed)
  r.expires, r.seen = tonumber(expires), tonumber(seen)
  if not (r.error and with_status[r.status] and math.max(r.revision, r.attempt, r.tries, r.ttl,
      r.created, r.started, r.completed, r.expires, r.seen) < LARGEST) then
    damaged()
  end
  return r
end

-- Writes `about`, and makes the record and its place in `expiry` expire together.
local function save(record, member, r)
  redis.call('HSET', record, 'about', table.concat({
    r.status, integer(r.revision), integer(r.attempt), integer(r.tries), r.run, r.entry, integer(r.ttl),
    integer(r.created), integer(r.started), integer(r.completed), integer(r.expires), integer(r.seen),
    r.pipeline, r.definition, r.digest, r.steps, r.made, r.error,
  }, ' '))
  redis.call('PEXPIREAT', record, integer(math.ceil(r.expires / 1000)))
  redis.call('ZADD', expiry, integer(r.expires), member)
end

-- Changes the status and the index of it.
local function become(member, r, status)
  redis.call('ZREM', with_status[r.status], member)
  redis.call('ZADD', with_status[status], 0, member)
  r.status = status
end

-- Pending runs stand in `waiting` in the order of their scores, which are microseconds, kept even:
--   by when a run is needed: its start, if nothing else was said. One more, so odd, if that was declared;
--   below 0 once somebody waits for it: since when, less AFTER_ALL;
--   AFTER_ALL more once it was passed over, because it could not be ready in time;
--   infinite while it is set aside for one ticket: its last try, which needs a worker with nothing else.
-- The stream `jobs` holds their tickets. Which run a ticket is for is settled when it is claimed, and
-- is in `tickets` from then on: "score run member". There are never fewer others than runs that wait;
-- more of them do no harm. A ticket names the run that brought it, for log lines alone.
local AFTER_ALL = 2 ^ 52
local ASIDE = 'inf'
local TICKET = '^(%S+) (%S+) (.*)$'

-- A place in `waiting` of a run that is needed `need` microseconds from now; less than 0: at once.
local function place(now, need)
  local declared = need >= 0 and 1 or 0
  local when = now + math.max(need, 0)
  return when - when % 2 + declared
end

-- Offers: which pipelines workers can run, and what makes the values of their steps there. A *class* of runs is
-- "pipeline@definition": a worker computes a run only if it offers its class. A *maker* is a digest of the
-- identities of all providers that a step depends on; a step without any has none, '-'.
--
-- The hash `offers` has a field for each worker: until when, and "class makers" for each of its pipelines,
-- with makers as "step=maker" joined by commas, or '-'. The field EVERY has the offers of all workers, as
-- "until class makers", each once; of a pipeline that no worker offers now, those that were offered last.
local EVERY = '='
-- The maker of a step that a caller has reported, in front of the steps that it was made of, each after
-- one more: any worker that would make these as they were made may go on with it.
local REPORTED = '*'

local function is_reported(maker)
  return string.sub(maker or '', 1, 1) == REPORTED
end

local function class_of(r)
  return r.pipeline .. '@' .. r.definition
end

-- Of "step=value" joined by commas: each step's value, and the steps in their order.
local function pairs_of(text)
  local values, names = {}, {}
  for name, value in string.gmatch(text, '([^=,]+)=([^,]+)') do
    values[name] = value
    names[#names + 1] = name
  end
  return values, names
end

-- What made each step of a record, and the steps in their order.
local function made_of(r)
  local _, names = pairs_of(r.steps)
  local made, i = {}, 0
  for maker in string.gmatch(r.made, '[^.]+') do
    i = i + 1
    if names[i] then
      made[names[i]] = maker
    end
  end
  return made, names
end

-- As a record keeps it: '-' where no step has a maker.
local function made_text(made, names)
  local parts, any = {}, false
  for i, name in ipairs(names) do
    parts[i] = made[name] or '-'
    any = any or parts[i] ~= '-'
  end
  return any and table.concat(parts, '.') or '-'
end

-- The makers in each offer of this class: of the workers of today or, if none of them offers the pipeline,
-- of those that did so last. nil when nothing is known of such workers.
local function offers_of(pipeline, class, now)
  local today, last, offered, known = {}, {}, false, false
  local own = pipeline .. '@'
  local every = redis.call('HGET', offers, EVERY) or ''
  for till, other, makers in string.gmatch(every, '(%d+) (%S+) (%S+)') do
    if string.sub(other, 1, #own) == own then
      known = true
      local live = tonumber(till) > now
      offered = offered or live
      if other == class then
        local found = live and today or last
        found[#found + 1] = pairs_of(makers)
      end
    end
  end
  return known and (offered and today or last) or nil
end

-- Whether one of these offers makes the step's value as it was `made`, or what a reported one was made of.
local function makes_step(found, name, made)
  if not found then
    return true
  end
  if is_reported(made[name]) then
    for need in string.gmatch(made[name], '[^*]+') do
      if not makes_step(found, need, made) then
        return false
      end
    end
    return true
  end
  for _, makers in ipairs(found) do
    if (makers[name] or '-') == (made[name] or '-') then
      return true
    end
  end
  return false
end

-- Removes what was made of these steps. An ended step changes no more in its revision, and a caller may have
-- read it, and report another that it made of it: so what is left is a new revision.
local function drop_steps(record, r, names)
  local dropped = 0
  for _, name in ipairs(names) do
    dropped = dropped + redis.call('HDEL', record, 's:' .. name)
  end
  if dropped > 0 then
    r.revision = r.revision + 1
  end
end

-- Whether one of these offers makes all of this run's values as they were made.
local function makes_run(found, r)
  local made, names = made_of(r)
  for _, makers in ipairs(found or {}) do
    local same = true
    for _, name in ipairs(names) do
      same = same and makes_step({makers}, name, made)
    end
    if same then
      return true
    end
  end
  return not found
end

-- What a pending run waits for besides its turn: 'worker' when there is none, 'pipeline' when none of them
-- offers it, 'version' when they offer another definition of it; nil when one can take it.
local function lacks(r, now)
  if r.status ~= 'pending' then
    return nil
  end
  local any, pipeline = false, false
  local own = r.pipeline .. '@'
  for till, class in string.gmatch(redis.call('HGET', offers, EVERY) or '', '(%d+) (%S+) %S+') do
    if tonumber(till) > now then
      any = true
      if class == class_of(r) then
        return nil
      end
      pipeline = pipeline or string.sub(class, 1, #own) == own
    end
  end
  if not any then -- a worker may be there and be able to run nothing at the moment
    for _, text in ipairs(redis.call('HVALS', offers)) do
      any = any or tonumber(string.match(text, '^%d+') or 0) > now
    end
  end
  return any and (pipeline and 'version' or 'pipeline') or 'worker'
end

-- Notes what a worker offers, for so many microseconds from now; with 0, it offers nothing any more.
local function note_offers(worker, offering, ttl, now)
  local till_of, live = {}, {}
  local function add(text, till)
    for class, makers in string.gmatch(text, '(%S+) (%S+)') do
      local offer = class .. ' ' .. makers
      till_of[offer] = math.max(till_of[offer] or 0, till)
      if till > now then
        live[string.match(class, '^[^@]*')] = true
      end
    end
  end
  local known = redis.call('HGETALL', offers)
  for i = 1, #known, 2 do
    local name = known[i]
    if name ~= EVERY then
      local till, text = string.match(known[i + 1], '^(%d+) (.*)$')
      till = tonumber(till) or 0
      if name == worker or till <= now then
        redis.call('HDEL', offers, name)
        till = math.min(till, now)
      end
      add(text or '', till)
    end
  end
  if ttl > 0 then
    redis.call('HSET', offers, worker, integer(now + ttl) .. ' ' .. offering)
    add(offering, now + ttl)
  end
  for till, offer in string.gmatch(redis.call('HGET', offers, EVERY) or '', '(%d+) (%S+ %S+)') do
    till_of[offer] = till_of[offer] or math.min(tonumber(till), now)
  end
  local lines = {}
  for offer, till in pairs(till_of) do
    if till > now or not live[string.match(offer, '^[^@]*')] then
      lines[#lines + 1] = integer(till) .. ' ' .. offer
    end
  end
  if #lines > 0 then
    redis.call('HSET', offers, EVERY, table.concat(lines, '\n'))
  end
end

-- Pending runs of a class that a worker met and did not offer stand in a sorted set of their class, with
-- the scores of `waiting` and without tickets; `unserved` has the classes of which there are any.
local function unserved_of(class)
  return unserved .. ':' .. class
end

local function unqueue(member)
  redis.call('ZREM', waiting, member)
  for _, class in ipairs(redis.call('HKEYS', unserved)) do
    local set = unserved_of(class)
    if redis.call('ZREM', set, member) == 1 and redis.call('EXISTS', set) == 0 then
      redis.call('HDEL', unserved, class)
    end
  end
end

-- Puts a pending run into the set of its class, which lives as long as the last of its runs.
local function stand_unserved(set, member, r, score)
  redis.call('ZADD', set, integer(score), member)
  local till = math.max(redis.call('PEXPIRETIME', set), math.ceil(r.expires / 1000))
  redis.call('PEXPIREAT', set, integer(till))
end

-- Leaves a pending run for workers that offer its class.
local function set_aside(member, r, score)
  local class = class_of(r)
  local set = unserved_of(class)
  unqueue(member)
  stand_unserved(set, member, r, score)
  redis.call('HSET', unserved, class, 1)
  announce('unserved', r.run, class, member)
end

-- Where a pending run stands: in which set, and with which score; infinite while it is for one ticket.
local function standing(member, r)
  local set = waiting
  local score = redis.call('ZSCORE', set, member)
  if not score then
    set = unserved_of(class_of(r))
    score = redis.call('ZSCORE', set, member)
  end
  return score and set or waiting, tonumber(score or ASIDE)
end

-- Queues a pending run. Of those of one moment the first comes first.
local function queue(member, run, score)
  local entry
  if run then
    entry = redis.call('XADD', jobs, '*', 'member', member, 'run', run)
  else
    entry = redis.call('XADD', jobs, '*', 'member', member)
    score = score + 2 * tonumber(string.match(entry, '%-(%d+)$'))
  end
  redis.call('ZADD', waiting, integer(score), member)
  return entry
end

-- Of the time in which a run was declared to be needed, the share by which that may be too long.
local GUESS = 2 / 5

-- Whether a place in `waiting` says that the run, which takes so long, cannot be ready in time, and
-- nobody waits for it. By when it is needed is a guess: one that would be ready at the last moment
-- would be too late half the time, and the worker's time lost.
local function is_late(r, score, took, now)
  return score >= 0 and score < AFTER_ALL and score % 2 == 1
    and score - (score - r.created) * GUESS - took < now
end

-- How long a run of this pipeline takes, in microseconds: of "name=microseconds" joined by commas.
local function expected_of(expected, pipeline)
  for name, took in string.gmatch(expected, '([^=,]+)=(%d+)') do
    if name == pipeline then
      return tonumber(took)
    end
  end
  return 0
end

-- The ledger: what became of the work of every run that was started, counted once (docs/decisions/0031).
--
-- While that is open, `unsettled` has the run's line: when it was first read, and each of its ended
-- steps that nobody has read, with what it cost. All are numbers of seven bits a byte, the lowest first,
-- and with 128 added to each byte but a number's last: twice the time of the first read in microseconds,
-- or 0, plus 1 once a step was used; then for each step its place in the run's `steps`, and its
-- microseconds, CPU microseconds and tokens.
--
-- `ledger` has the sums: fields "* <sum>" of all namespaces, and "<namespace> <sum>" of the first
-- BOOKS that had a run.
local BOOKS = 1000
local OPEN = string.char(0)
local USED = {used_ready = true, used_waited = true}
-- A run that was over by itself is told by its end, even if something of it was used before.
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

-- The line's numbers; none for a line that is not there.
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

-- Adds to the sums of all and, if it is among the first, of the member's namespace.
local function enter(member, sums)
  local namespace = string.match(member, '^[^:]*')
  local own = redis.call('HEXISTS', ledger, namespace .. ' starts') == 1
  for name, by in pairs(sums) do
    if by > 0 then
      redis.call('HINCRBY', ledger, '* ' .. name, integer(by))
      if own then
        redis.call('HINCRBY', ledger, namespace .. ' ' .. name, integer(by))
      end
    end
  end
end

-- Adds a step with its cost to sums under this fate.
local function count_step(sums, fate, compute, cpu, tokens)
  for name, by in pairs({steps = 1, compute_us = compute, cpu_us = cpu, llm_tokens = tokens}) do
    name = fate .. '.' .. name
    sums[name] = (sums[name] or 0) + by
  end
end

-- Closes the line of a run, if it is open: the run and its steps' work have met this fate.
-- Of the steps whose places `kept` has, the work is another run's from now on.
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

-- Begins the sums of the member's namespace, if they are not there and it is among the first BOOKS.
local function open_book(member)
  local namespace = string.match(member, '^[^:]*')
  local now = integer(clock())
  if redis.call('HSETNX', ledger, '* since', now) == 1
      or redis.call('HEXISTS', ledger, namespace .. ' starts') == 0 then
    if redis.call('HINCRBY', ledger, 'namespaces', 1) <= BOOKS then
      redis.call('HSET', ledger, namespace .. ' starts', 0, namespace .. ' since', now)
    else
      redis.call('HINCRBY', ledger, 'namespaces', -1)
    end
  end
end

-- Opens the line of a new run, with the steps that it has got from the one before it.
local function open_line(member, carried)
  open_book(member)
  redis.call('HSET', unsettled, member, OPEN .. (carried or ''))
  enter(member, {starts = 1})
end

-- Each step's name -> its place in the run's `steps`.
local function places(steps)
  local found, number = {}, 0
  for name in string.gmatch(steps, '([^=,]+)=[^,]+') do
    number = number + 1
    found[name] = number
  end
  return found
end

-- Adds the work of steps that have ended to the run's line, before the record shows that they have: of
-- one that has ended there it is a repetition. Nobody can use that of a step which failed.
-- `work` is "name letter microseconds cpu-microseconds tokens" joined by commas.
local function note_work(record, member, r, work)
  local line = work ~= '' and redis.call('HGET', unsettled, member)
  if not line then
    return
  end
  local added, sums, place = {}, {}, places(r.steps)
  for name, letter, compute, cpu, tokens in string.gmatch(work, '([^ ,]+) (%a) (%d+) (%d+) (%d+)') do
    local had = string.sub(redis.call('HGET', record, 's:' .. name) or 'P', 1, 1)
    compute, cpu, tokens = tonumber(compute), tonumber(cpu), tonumber(tokens)
    if had == 'C' or had == 'F' then
      place[name] = nil
    elseif letter == 'F' then
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

-- A caller has read the run: what had ended is used, ready if it had before the first of them came.
-- What computing took until then is hidden from users. Who came before the end is taken to have waited
-- for it, so what is said to be hidden was hidden at least, and never less than nothing.
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

-- Takes a run out of every set; its record may be gone already. If what became of its work was open,
-- it is `fate`.
local function forget(record, member, fate)
  settle(member, fate)
  redis.call('UNLINK', record)
  unqueue(member)
  redis.call('ZREM', expiry, member)
  redis.call('ZREM', unread, member)
  redis.call('ZREM', read, member)
  for _, set in pairs(with_status) do
    redis.call('ZREM', set, member)
  end
end

-- How many runs one call may forget: Redis serves nobody else for some 15 ms.
local SWEEP = 1000

-- Forgets runs that have expired. Returns how many; with SWEEP of them there may be more.
local function sweep(now)
  local expired = redis.call('ZRANGEBYSCORE', expiry, '-inf', integer(now), 'LIMIT', 0, SWEEP)
  for _, member in ipairs(expired) do
    forget(record_prefix .. member, member, 'expired')
  end
  return #expired
end

-- Removes the fields of steps that were running, so that they read as pending again.
local function stop_steps(record)
  local fields = redis.call('HGETALL', record)
  for i = 1, #fields, 2 do
    if string.sub(fields[i], 1, 2) == 's:' and string.sub(fields[i + 1], 1, 1) == 'R' then
      redis.call('HDEL', record, fields[i])
    end
  end
end

local function end_run(record, member, r, status, why, ttl_us)
  local now = clock()
  redis.call('HDEL', record, 'inputs', 'claim', 'trace', 'fresh')
  unqueue(member)
  if status ~= 'completed' then
    stop_steps(record)
  end
  if ENDS[status] then
    settle(member, status)
  end
  become(member, r, status)
  r.completed, r.expires, r.entry, r.error = now, now + ttl_us, '-', why
  save(record, member, r)
  redis.call('ZADD', unread, integer(now), member)
  announce(status == 'cancelled' and 'cancelled' or 'ended', r.run, '-', member)
end

-- The jobs' consumer group as a table of Redis's own fields, or nil when there is none.
local function group_info()
  for _, fields in ipairs(redis.pcall('XINFO', 'GROUPS', jobs)) do
    local info = {}
    for i = 1, #fields, 2 do
      info[fields[i]] = fields[i + 1]
    end
    if info.name == group then
      return info
    end
  end
  return nil
end

-- The server's clock may be set back. Times that were written before lie ahead then: a lost worker's jobs
-- would not become idle, and its offers not end, until the clock has caught up. The field LATEST of `ledger`
-- has the latest time that was seen here. Below, such delivery times become now, and offers end as much earlier.
local LATEST = 'clock'
-- Less than a lease, and more than a clock is corrected by while it runs.
local STEP_US = 1000000
-- An idle store need not write its append-only file more often.
local NOTE_US = 4000000

-- Jobs whose delivery lies ahead, or is of this very millisecond, are delivered now: their leases begin.
local function restart_leases()
  local from, found = '-', nil
  repeat
    found = redis.pcall('XPENDING', jobs, group, from, '+', 1000)
    for _, delivered in ipairs(found) do
      local entry, worker, idle = unpack(delivered)
      if idle == 0 then
        redis.call('XCLAIM', jobs, group, worker, 0, entry, 'IDLE', 0, 'JUSTID')
      end
      from = '(' .. entry
    end
  until #found < 1000
end

-- Lines of these hashes begin with the time when they end.
local function end_earlier(hash, by)
  local fields = redis.call('HGETALL', hash)
  for i = 1, #fields, 2 do
    local moved = string.gsub('\n' .. fields[i + 1], '\n(%d+)', function(till)
      return '\n' .. integer(math.max(0, tonumber(till) - by))
    end)
    redis.call('HSET', hash, fields[i], string.sub(moved, 2))
  end
end

-- Notes the time, and mends what a clock that was set back has left ahead. Workers do so every few seconds,
-- API processes every few seconds too.
local function note_clock(now)
  local latest = tonumber(redis.call('HGET', ledger, LATEST)) or now
  if now < latest - STEP_US then
    restart_leases()
    end_earlier(offers, latest - now)
    end_earlier(starters, latest - now)
  end
  if now <= latest or now > latest + NOTE_US then
    redis.call('HSET', ledger, LATEST, integer(now))
  end
end

-- Takes a delivered job off the queue. Its entry goes when no older one is left, because deleting
-- entries makes the queue's lag unknown, by which workers are scaled; trimming does not. So the job
-- of a run that ended before it was delivered stays, too: the worker that gets it drops it.
local function drop_job(entry)
  redis.pcall('XACK', jobs, group, entry) -- refused, if a damaged record names no entry
  redis.call('HDEL', tickets, entry)
  local info = group_info()
  if not info then
    return
  end
  local oldest
  if info.pending > 0 then
    oldest = redis.call('XPENDING', jobs, group)[2]
  else
    local time, number = string.match(info['last-delivered-id'], '(%d+)-(%d+)')
    oldest = time .. '-' .. integer(tonumber(number) + 1)
  end
  redis.call('XTRIM', jobs, 'MINID', oldest)
end
