"""What "fast" means here, measured: `python -m benchmarks`, or `make bench`."""
