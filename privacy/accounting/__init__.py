"""What was done to a population, and what it costs."""
