"""Pipelines, one package each. None imports another, nor a provider: `app` brings them together."""
