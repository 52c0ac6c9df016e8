"""Adapters as plain arrays: what a party computes with that has no base model and no PyTorch."""
