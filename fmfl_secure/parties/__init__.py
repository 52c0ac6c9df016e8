"""The parties of a federation, each in a folder of its own."""
