-- Forgets runs that have expired. Returns how many, and 1 when there may be more, else 0.
local expired = sweep(clock())
return {expired, expired == SWEEP and 1 or 0}
