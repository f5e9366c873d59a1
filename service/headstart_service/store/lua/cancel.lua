-- Ends a run that has not ended, as cancelled; its worker's late writes are refused.
-- With a `revision` other than 0 it ends that revision alone.
-- Returns {1 or 0 (it had ended before, or is another revision), status, revision}, or {} for an unknown key.

local r = load(record)
if not r or r.expires <= clock() then
  return {}
end
local wanted = tonumber(revision)
if not is_live(r.status) or wanted ~= 0 and wanted ~= r.revision then
  return {0, r.status, r.revision}
end
if r.status == 'in_progress' then
  drop_job(r.entry)
end
end_run(record, member, r, 'cancelled', 'cancelled', 'cancelled by the caller', tonumber(failure_ttl_us))
return {1, r.status, r.revision}
