-- Reads the ledger of an abandoned partition, after every run has left it.
-- Returns {name, number, …}.

for _, name in ipairs(redis.call('HKEYS', unsettled)) do
  settle(name, 'expired') -- a line whose run is gone
end
return redis.call('HGETALL', ledger)
