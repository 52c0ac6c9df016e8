"""The protocol over Flower: its SuperLink, SuperNodes and simulation carry frames, and no more.

Coordinator and aggregator run in the ServerApp, every other party in a process of its own beside
its SuperNode. What they say is signed end to end; Flower sees bytes. None of Flower's strategies,
differential privacy or secure aggregation is used.

Only `client_app`, `server_app`, `records` and `simulation` import Flower.
"""
