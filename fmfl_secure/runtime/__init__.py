"""The server's side of a run: rounds and attempts, whatever carries the messages."""
