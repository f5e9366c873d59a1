"""Counts and measures; renders Prometheus's text when it is scraped."""
