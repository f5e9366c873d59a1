"""Keeps runs in Redis: one atomic, fenced script for each transition."""
