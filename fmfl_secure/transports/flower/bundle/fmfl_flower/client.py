"""The installed package's ClientApp."""

from fmfl_secure.transports.flower.client_app import bundled_client

app = bundled_client()
