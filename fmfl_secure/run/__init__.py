"""A run as those see it who tell of it: its record, its end, its transcript."""
