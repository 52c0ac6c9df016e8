"""Integers in CKKS ciphertexts and back: parameters, packing, residues, suites."""
