"""The installed package's ServerApp."""

from fmfl_secure.engines.flower.grid import bundled_server

app = bundled_server()
