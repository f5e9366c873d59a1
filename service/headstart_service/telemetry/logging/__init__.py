"""Log lines: one event, one line, with its fields."""
