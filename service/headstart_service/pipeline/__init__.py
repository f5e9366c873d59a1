"""What pipeline authors declare, and what is checked about it."""
