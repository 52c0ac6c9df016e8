"""The one-run audit: canaries through the real training path, and what guesses about them show."""
