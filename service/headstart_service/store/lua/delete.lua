-- Deletes a run, also a damaged one, as if its key had never been started. A worker's late writes are refused.
-- With a `revision` other than 0 it deletes that revision alone.
-- Returns 1, or 0 when there was nothing to delete.

local whole, r = pcall(load, record)
local wanted = tonumber(revision)
if whole and (not r or wanted ~= 0 and wanted ~= r.revision) then
  return 0
end
local there = not whole or r.expires > clock()
announce('dropped', whole and r.run or '-', '-', member)
if whole and is_live(r.status) then
  count_ends(clock(), 1)
  if r.status == 'in_progress' then
    drop_job(r.entry)
  end
end
forget(record, member, there and 'cancelled' or 'expired')
return there and 1 or 0
