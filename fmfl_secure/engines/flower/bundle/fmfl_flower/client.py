"""The installed package's ClientApp."""

from fmfl_secure.engines.flower.courier import bundled_client

app = bundled_client()
