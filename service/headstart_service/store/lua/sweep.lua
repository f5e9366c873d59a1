-- Forgets runs that have expired, at most a thousand. Returns how many.
return sweep(clock(), 1000)
