"""What units respond to: one pass over stored rows, kept so that any unit opens at once."""
