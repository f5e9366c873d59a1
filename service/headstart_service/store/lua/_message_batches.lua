-- Requests of a language model in batches. A request is one line: the run and the claim that own it, until when, since
-- when it exists, and its batch, empty until that is known. Times in microseconds.

local function write_message_batch(owner, ends, created, batch)
  return owner .. ' ' .. ends .. ' ' .. integer(created) .. ' ' .. batch
end

-- What is no such line counts as a request that was never handed in.
local function read_message_batch(line)
  local run, attempt, ends, created, batch = string.match(line, '^(%S*) (%d+) (%d+) (%d+) (%S*)$')
  return {
    run = run or '', attempt = tonumber(attempt or 0), ends = tonumber(ends or 0), created = tonumber(created or 0),
    batch = batch or '',
  }
end
