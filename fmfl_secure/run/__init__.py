"""What a run is to those who tell of it: its record, its end, its transcript."""
