-- Delivers to a worker up to `limit` jobs for runs that were left for workers that offer their class. Each such run
-- brings a new ticket and is bound to the ticket that is delivered next, so that no worker without the class gets it.
-- Returns {entry, member, run, …}.

local reply = {}

local function full()
  return #reply >= 3 * tonumber(limit)
end

local function add(...)
  for _, value in ipairs({...}) do
    reply[#reply + 1] = value
  end
end

local function deliver(member, r, score)
  redis.call('XADD', jobs, '*', 'member', member, 'run', r.run)
  while not full() do
    local found = redis.pcall('XREADGROUP', 'GROUP', group, worker, 'COUNT', 1, 'STREAMS', jobs, '>')
    if not found or found.err then
      break -- there is no group yet
    end
    local entry = found[1][2][1][1]
    local _, run, name = string.match(redis.call('HGET', tickets, entry) or '', TICKET)
    if not name then
      redis.call('HSET', tickets, entry, integer(score) .. ' ' .. r.run .. ' ' .. member)
      redis.call('ZADD', waiting, ASIDE, member)
      add(entry, member, r.run)
      return
    end
    add(entry, name, run) -- a worker that left had claimed or taken it for this run
  end
  redis.call('ZADD', waiting, integer(score), member) -- it has a ticket like others
end

for class in string.gmatch(offering, '(%S+) %S+') do
  while redis.call('HEXISTS', unserved, class) == 1 and not full() do
    local first = redis.call('ZRANGE', unserved_of(class), 0, 0, 'WITHSCORES')
    local member, score = first[1], tonumber(first[2])
    if not member then
      redis.call('HDEL', unserved, class)
    else
      local whole, r = pcall(load, record_prefix .. member)
      unqueue(member)
      if whole and r and r.status == 'pending' then
        deliver(member, r, score)
      end
    end
  end
end
return reply
