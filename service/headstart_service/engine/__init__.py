"""Runs pipelines: DAGs of typed async steps. Knows neither gRPC nor Redis."""
