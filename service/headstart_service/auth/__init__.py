"""Decides which callers may connect, and what their tokens and certificates allow."""
