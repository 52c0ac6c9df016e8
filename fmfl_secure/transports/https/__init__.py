"""The federation across machines: a server, a decryptor and sites, over HTTPS with mutual TLS.

Only the server listens. Decryptor and sites ask it what there is to do (`tasks`), fetch the bytes
that it is about, and send their own. The bytes are those of `docs/protocol.md`; this package adds
nothing that a party would have to trust.
"""
