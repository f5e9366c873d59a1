-- The server's clock may be set back. Earlier written times then lie ahead: until the clock has caught up, a lost
-- worker's jobs would not become idle, and its offers would not end. The field LATEST of `ledger` has the latest
-- time that a script has noted. After a step back, such delivery times become now, and offers end earlier.
local LATEST = 'clock'
-- Less than a lease, and more than the usual correction of a running clock.
local STEP_US = 1000000
-- An idle store need not write its append-only file more often.
local NOTE_US = 4000000

-- Delivers anew the jobs whose delivery lies ahead or in this millisecond: their leases begin now.
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

-- Ends each line of the hash `by` microseconds earlier: a line begins with the time when it ends.
local function end_earlier(hash, by)
  local fields = redis.call('HGETALL', hash)
  for i = 1, #fields, 2 do
    local moved = string.gsub('\n' .. fields[i + 1], '\n(%d+)', function(till)
      return '\n' .. integer(math.max(0, tonumber(till) - by))
    end)
    redis.call('HSET', hash, fields[i], string.sub(moved, 2))
  end
end

-- Notes the time, and corrects times that lie ahead after the clock was set back. Workers and API processes call
-- this every few seconds.
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
