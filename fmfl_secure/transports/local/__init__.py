"""The embedded engine: all parties on one machine, as separate objects with separate keys."""
