-- Forgets runs that have expired. Returns 1 when there may be more than one call may sweep, else 0.
return sweep(clock()) == SWEEP and 1 or 0
