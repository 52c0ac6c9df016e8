"""The installed package's ServerApp."""

from fmfl_secure.transports.flower.server_app import bundled_server

app = bundled_server()
