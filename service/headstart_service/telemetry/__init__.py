"""What a process tells of itself in figures: collected where things happen, rendered when asked."""
