"""The live page of an API process: its runs, its figures, its event stream."""
