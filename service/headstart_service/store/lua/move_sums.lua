-- Reads the ledger of a partition that is given up, after every run has left it: {name, number, …}.

for _, name in ipairs(redis.call('HKEYS', unsettled)) do
  settle(name, 'expired') -- a line whose run is gone
end
return redis.call('HGETALL', ledger)
