"""FMFL Secure as a Flower app: names of apps in the installed package."""
