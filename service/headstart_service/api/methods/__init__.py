"""The methods of PrecomputeService, one module each; they know neither gRPC nor HTTP.

A method has `parse`, which validates and normalises a request once, and `handle`, which serves it.
Both raise domain errors; a transport translates them.
"""
