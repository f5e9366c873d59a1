"""`headstart pipelines generate`: writes a typed module that starts and reads pipelines."""
