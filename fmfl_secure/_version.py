"""The version, for modules that may not import the package's face."""

__version__ = "0.2.0"
