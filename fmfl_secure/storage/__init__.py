"""Stores of a party, on disk or in a database, and how their failures are told."""
