"""The processes of a federation across machines, each with its operations port."""
