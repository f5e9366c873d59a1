-- Ends a run that has not ended, as cancelled; its worker's late writes are refused.
-- Returns {1 or 0 (it had ended before), status, revision}, or {} for an unknown key.

local r = load(record)
if not r or r.expires <= clock() then
  return {}
end
if not is_live(r.status) then
  return {0, r.status, r.revision}
end
if r.status == 'in_progress' then
  drop_job(r.entry)
end
end_run(record, member, r, 'cancelled', 'cancelled by the caller', tonumber(failure_ttl_us))
return {1, r.status, r.revision}
