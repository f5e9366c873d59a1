-- Ends a move in this partition: with `kept` 1 it gets the `final` layout, else all of it is removed.
-- Returns 1.

if kept == '0' then
  redis.call('UNLINK', order_of(waiting), unpack(KEYS))
  for band = 0, BANDS - 1 do
    redis.call('UNLINK', turns_of(waiting, band), served_of(nil, band))
    for _, pool in ipairs(pools()) do
      redis.call('UNLINK', served_of(pool, band), pool_key(pool, 'pending'), pool_key(pool, 'in_progress'))
    end
  end
  redis.call('UNLINK', pool_names())
  return 1
end
for _, name in ipairs(redis.call('HKEYS', ledger)) do
  if string.sub(name, 1, 6) == 'moved/' then
    redis.call('HDEL', ledger, name)
  end
end
redis.call('SET', layout, final)
return 1
