"""The Headstart server: gRPC API, store, engine, pipelines and their providers."""
