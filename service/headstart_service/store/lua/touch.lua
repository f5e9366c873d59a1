-- Lets an ended run live for at least `ttl_us` from now on, any other one for so long after its end.
-- With a `revision` other than 0 it prolongs that revision alone.
-- Returns {status, revision, expires}, or {} for an unknown key or another revision.

local r = load(record)
local now, wanted, ttl = clock(), tonumber(revision), tonumber(ttl_us)
if not r or r.expires <= now or wanted ~= 0 and wanted ~= r.revision then
  return {}
end
r.ttl = math.max(r.ttl, ttl)
if is_live(r.status) then
  r.expires = math.max(r.expires, now + math.max(r.ttl, tonumber(patience_us)))
  save(record, member, r)
elseif r.expires < now + ttl then
  r.expires = now + ttl
  save(record, member, r)
  announce('dropped', r.run, '-', member) -- it lives longer than its kept answers say
end
return {r.status, r.revision, r.expires}
