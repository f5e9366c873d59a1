"""Answers reads: the near-cache, shared waits, the subscription and estimates."""
