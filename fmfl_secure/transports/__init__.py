"""Ways of carrying one protocol between the parties."""
