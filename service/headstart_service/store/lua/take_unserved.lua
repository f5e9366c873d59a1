-- Delivers to a worker up to `limit` jobs for runs that were left for workers that offer their class. Each such run
-- brings a new ticket and is bound to the ticket that is delivered next, so that no worker without the class gets it.
-- It charges their namespaces, as a claim does. Returns {entry, member, run, …}.

local reply = {}

local function full()
  return #reply >= 3 * tonumber(limit)
end

local function add(...)
  for _, value in ipairs({...}) do
    reply[#reply + 1] = value
  end
end

local function deliver(set, member, r, score, turn)
  redis.call('XADD', jobs, '*', 'member', member, 'run', r.run)
  while not full() do
    local found = redis.pcall('XREADGROUP', 'GROUP', group, worker, 'COUNT', 1, 'STREAMS', jobs, '>')
    if not found or found.err then
      break -- there is no group yet
    end
    local entry = found[1][2][1][1]
    local _, run, name = string.match(redis.call('HGET', tickets, entry) or '', TICKET)
    if not name then
      local cost = expected_of(costs, r.pipeline)
      local charged = charge(set, member, score, turn, pool_of(class_of(r)), cost, weights)
      forget_empty(set, class_of(r))
      redis.call('HSET', tickets, entry, ticket_of(score, charged, 0, r, member))
      stand(waiting, member, tonumber(ASIDE))
      add(entry, member, r.run)
      return
    end
    add(entry, name, run) -- a worker that left had claimed or taken it for this run
  end
  unqueue(member)
  stand(waiting, member, score) -- it has a ticket like others
end

local sets = {}
for class in string.gmatch(offering, '(%S+) %S+') do
  if redis.call('EXISTS', unserved_of(class)) == 1 then
    sets[#sets + 1] = unserved_of(class)
  else
    redis.call('HDEL', unserved, class)
  end
end
while not full() do
  local member, score, set, turn = first_of(sets)
  if not member then
    break
  end
  local whole, r = pcall(load, record_prefix .. member)
  if whole and r and r.status == 'pending' then
    deliver(set, member, r, score, turn)
  else
    unqueue(member)
  end
end
return reply
