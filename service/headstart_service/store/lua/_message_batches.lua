-- Requests of a language model in batches. A request is one line: the run and the claim that own it, since when it
-- exists, in microseconds, and its batch, empty until that is known.

local function write_message_batch(owner, created, batch)
  return owner .. ' ' .. integer(created) .. ' ' .. batch
end

-- What is no such line counts as a request that was never handed in.
local function read_message_batch(line)
  local run, attempt, created, batch = string.match(line, '^(%S*) (%d+) (%d+) (%S*)$')
  return {
    run = run or '', attempt = tonumber(attempt or 0), created = tonumber(created or 0), batch = batch or '',
  }
end

-- Whether the request of this line is the owner's.
local function owns_message_batch(owner, line)
  local r = read_message_batch(line)
  return r.run .. ' ' .. integer(r.attempt) == owner
end
