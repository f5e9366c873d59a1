-- Forgets runs that have expired, at most a thousand. Returns how many.
return sweep(record_prefix, clock(), 1000)
