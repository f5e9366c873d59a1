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

-- Publishes what has happened to a run: `run` is its id, or '-' if that is unknown. `what` are the steps that
-- ended; for 'started' it is the id of the replaced run; '-' stands for neither.
local function announce(kind, run, what, member)
  redis.call('PUBLISH', channel, kind .. ' ' .. run .. ' ' .. what .. ' ' .. member)
end
