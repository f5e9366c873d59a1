"""Settings: their names, defaults and ranges, read once from the environment."""
