-- Counts the work of steps whose results no run takes: their run was replaced, cancelled or deleted, or has failed. While
-- the run is live another worker may go on with it, and nothing is counted.
-- `work` is as note_work takes it.
-- Returns the fate under which it counts, or ''. Its callers must not repeat it: each call adds.

local whole, r = pcall(load, record)
local fate = 'replaced'
if not whole then
  return ''
elseif not r then
  fate = 'cancelled'
elseif r.run == run_id then
  fate = ENDS[r.status] and r.status or ''
end
local sums = {}
for compute, cpu, tokens in string.gmatch(work, '[^ ,]+ %a (%d+) (%d+) (%d+)') do
  count_step(sums, fate, tonumber(compute), tonumber(cpu), tonumber(tokens))
end
if fate ~= '' then
  enter(member, sums)
end
return fate
