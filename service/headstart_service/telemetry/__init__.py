"""Reports how a process fares: metrics, traces and log lines."""
