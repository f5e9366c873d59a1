"""The HTTP port: probes and metrics, and the live page's routes."""
