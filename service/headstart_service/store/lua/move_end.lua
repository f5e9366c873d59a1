-- Ends a move in this partition: with `kept` 1 it gets the `final` layout, else all of it is removed.
-- Returns 1.

if kept == '0' then
  redis.call('UNLINK', unpack(KEYS))
  return 1
end
for _, name in ipairs(redis.call('HKEYS', ledger)) do
  if string.sub(name, 1, 6) == 'moved/' then
    redis.call('HDEL', ledger, name)
  end
end
redis.call('SET', layout, final)
return 1
