"""One module a contender: how its documentation tells to start a run and to have its result.

Each is imported in its contender's own environment, by the driver and by the worker. `client` and
`PACKAGES` are for the driver; the rest is what the worker's command line names.
"""
