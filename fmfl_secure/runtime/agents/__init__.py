"""A party's side of a run: what it does with each assignment."""
