"""The composition roots: build an API or a worker process, start it, drain it."""
