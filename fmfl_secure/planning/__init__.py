"""What settings come to before any data are used: plans, predictions, what can be afforded."""
