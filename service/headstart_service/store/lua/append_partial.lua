-- Adds `data` to what a running step has given, behind its first `offset` bytes of this `trial`, and announces it to the
-- processes that follow the run. A later trial begins anew. What the step of a step run gives is kept beside its run.
-- Returns how many bytes are kept of the trial: fewer than the caller believes if the store has lost some, so that it
-- sends them again. Returns -1 when the lease no longer holds, or another trial is later. Repeating it changes nothing.

-- Bytes that an announcement carries at most; receivers read a larger piece from the store.
local CARRIED_PIECE = 16384

local r = load(record)
if not r or r.run ~= run_id or r.attempt ~= tonumber(attempt) or r.status ~= 'in_progress' then
  return -1
end
local holder = integer(r.attempt)
if is_step_run(member) then
  holder = r.run .. '/' .. holder
  member, record, r = owner_that_waits(member, record)
  if not r then
    return -1
  end
end
local partials, number = partials_of(member), tonumber(trial)
local p = decode_partial(redis.call('HGET', partials, step))
local same = p and p.run == r.run and p.holder == holder
if same and p.trial > number then
  return -1
end
local anew = not same or p.trial ~= number
if anew then
  local before = 0
  if p then
    before = p.generation
    remove_pieces(partials, step, p)
  end
  p = {
    run = r.run, holder = holder, trial = number, generation = math.max(clock(), before + 1), length = 0,
    form = form,
  }
end
local added = p.length == tonumber(offset) and data or ''
if #added == 0 and not anew then
  return p.length
end
local from, at = p.length, 1
while at <= #added do
  local field = step .. ':' .. math.floor(p.length / PIECE)
  local held = p.length % PIECE
  local piece = string.sub(added, at, at + PIECE - held - 1)
  redis.call('HSET', partials, field, held > 0 and redis.call('HGET', partials, field) .. piece or piece)
  at, p.length = at + #piece, p.length + #piece
end
redis.call('HSET', partials, step, encode_partial(p))
redis.call('PEXPIREAT', partials, integer(math.ceil(r.expires / 1000)))
local carried = #added <= CARRIED_PIECE and added or ''
local about = {step, p.form, integer(p.generation), integer(from), integer(p.length), #carried}
announce('partial', r.run, table.concat(about, ','), member, nil, nil, carried)
return p.length
