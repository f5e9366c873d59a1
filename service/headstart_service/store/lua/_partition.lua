-- The start of every script: the keys of its partition, its clock and its announcements.
--
-- A script is the body of a function. Its parameters are `record` and `member`, the key and the name of the
-- run it is about, then its own arguments by name; the rest is `...`. KEYS begin with the partition's fixed
-- keys, in the order of keys.FIXED. The loader puts the files `_*.lua` in front of each script.

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

-- A record's field `to` names the processes to which the run's announcements go, each as ' ', a level and the process:
-- level 0 is the run's worker, the others are those of domain.Awaits.
local TO = ' (%d)(%x+)'
local WAITING = ' [1-9]%x'
-- The lowest level that receives an announcement of this kind.
local LEAST = {
  started = 1, ended = 1, cancelled = 1, dropped = 1, step = 2, reported = 2, claimed = 3, released = 3, unserved = 3,
  awaited = 10, -- for the run's worker alone
  partial = 4,
}
local FOR_WORKERS = {started = true, cancelled = true, dropped = true, reported = true, awaited = true}

-- So many processes may be named before those that have ended are removed; then as many again.
local CROWD = 64

-- Returns `to` without processes that receive nothing.
local function without_ended(to)
  local levels, processes, channels = {}, {}, {}
  for level, process in string.gmatch(to, TO) do
    levels[#levels + 1], processes[#processes + 1] = level, process
    channels[#channels + 1] = channel .. ':' .. process
  end
  local left, receivers = '', redis.pcall('PUBSUB', 'SHARDNUMSUB', unpack(channels))
  for i, level in ipairs(levels) do
    if level == '0' or receivers.err or receivers[2 * i] > 0 then
      left = left .. ' ' .. level .. processes[i]
    end
  end
  return left
end

-- Has a run's announcements sent to a process, from this level on.
local function send_to(record, process, level)
  local to = redis.call('HGET', record, 'to') or ''
  local known = string.match(to, ' (%d)' .. process)
  if not known then
    local _, crowd = string.gsub(to, ' ', ' ')
    if crowd > 0 and crowd % CROWD == 0 then
      to = without_ended(to)
    end
    redis.call('HSET', record, 'to', to .. ' ' .. level .. process)
  elseif tonumber(known) < level then
    redis.call('HSET', record, 'to', (string.gsub(to, ' %d' .. process, ' ' .. level .. process)))
  end
end

-- Publishes what has happened to a run: `run` is its id, or '-' if that is unknown. `what` are the steps that
-- ended; for 'started' it is the id of the replaced run; '-' stands for neither. It goes to live pages, and to the
-- processes in `to`, by default those of the record. A process that receives nothing is removed: it has ended, or will
-- read again once it receives. A worker reads nothing again, so it stays until the run ends or is released.
-- Processes with waiting callers also get the `result`, {sizes, values}, with the sizes in place of `what`.
-- A `piece` stands behind the run's name, for the processes that follow its partial results alone.
-- Returns how many of these have received it.
local function announce(kind, run, what, member, to, result, piece)
  local text = kind .. ' ' .. run .. ' ' .. what .. ' ' .. member .. (piece or '')
  if not piece and kind ~= 'awaited' then
    redis.call('SPUBLISH', channel, text)
  end
  if kind == 'unserved' then
    redis.call('SPUBLISH', channel .. ':unserved', text)
  end
  local record = record_prefix .. member
  to = to or redis.pcall('HGET', record, 'to')
  if type(to) ~= 'string' then -- nobody, or a damaged record
    return 0
  end
  local whole = result and kind .. ' ' .. run .. ' ' .. result[1] .. ' ' .. member .. result[2]
  local left, reached = '', 0
  for level, process in string.gmatch(to, TO) do
    local received = 1
    if tonumber(level) >= LEAST[kind] or level == '0' and FOR_WORKERS[kind] then
      received = redis.call('SPUBLISH', channel .. ':' .. process, level ~= '0' and whole or text)
      reached = reached + (level ~= '0' and received or 0)
    end
    if received > 0 or level == '0' then
      left = left .. ' ' .. level .. process
    end
  end
  if #left < #to and redis.call('HEXISTS', record, 'to') == 1 then
    redis.call('HSET', record, 'to', left)
  end
  return whole and reached or 0
end
