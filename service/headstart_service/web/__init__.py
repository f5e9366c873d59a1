"""The HTTP port: for probes and people, never for callers."""
