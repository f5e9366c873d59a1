"""How a step's value is typed, encoded and limited."""
