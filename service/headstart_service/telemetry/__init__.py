"""What the service tells those who run it. Nothing here is loaded unless it is asked for."""
