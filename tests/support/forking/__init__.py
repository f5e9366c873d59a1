"""Backends that fork: what tests run in processes of their own."""

CHILDREN = 8
PATIENT = 20.0
"""Seconds: a budget, or a wait, that a busy machine keeps."""
