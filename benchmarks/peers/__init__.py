"""Headstart beside what a team would use instead, on the same work: `make bench-peers`.

Every contender has a driver of its own, a process in the environment of its own that uses its
client as its documentation tells; so has Headstart. The drivers measure, this package compares.
"""
