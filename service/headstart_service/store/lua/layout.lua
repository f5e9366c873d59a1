#!lua flags=allow-oom
-- Compares a partition's layout with a process's own. Writes its own where there is none and `create` is 1. If both
-- are the same, registers the process as live for `ttl_us`; with 0 removes it.
-- It is no part of a batch: it runs with any layout. KEYS: layout, processes.
-- ARGV: the process's layout, create, the process's name or '', ttl_us, the channel of resets.
-- Returns {the layout or '', was_live, name, name, …}: was_live is 1 if the process was live until now, and
-- the names are those of the processes that are.

local own, create, process, ttl = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local found = redis.pcall('GET', KEYS[1])
if type(found) ~= 'string' then
  found = ''
  if create == '1' then
    redis.call('SET', KEYS[1], own)
    redis.call('SPUBLISH', ARGV[5], 'reset - - :') -- what processes keep may be of a store that was emptied
    found = own
  end
end
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', string.format('%.0f', now))
-- Ten minutes ahead: written before the clock was set back. A live process registers again.
redis.call('ZREMRANGEBYSCORE', KEYS[2], string.format('%.0f', now + 600000000), '+inf')
local was_live = redis.call('ZSCORE', KEYS[2], process) and 1 or 0
if process ~= '' and ttl == 0 then
  redis.call('ZREM', KEYS[2], process)
elseif process ~= '' and found == own
    and tonumber(redis.call('ZSCORE', KEYS[2], process) or 0) < now + ttl / 2 then
  -- Not every time: an idle store need not write its append-only file several times a second.
  redis.call('ZADD', KEYS[2], string.format('%.0f', now + ttl), process)
  redis.call('PEXPIRE', KEYS[2], math.ceil(ttl / 1000))
end
return {found, was_live, unpack(redis.call('ZRANGE', KEYS[2], 0, 99))}
