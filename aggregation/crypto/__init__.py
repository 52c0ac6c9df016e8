"""Identities, key agreement, masks and the MAC."""
