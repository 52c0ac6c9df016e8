"""Reads a PostgreSQL URL before its driver does: our schema, and what is secret in it."""

from __future__ import annotations

_SECRETS = ("password", "sslpassword")


def split_schema(url: str) -> tuple[str, str]:
    """A URL as libpq knows it, and the schema that it named; empty where it named none."""
    base, parameters = _split(url)
    kept = [(name, value) for name, value in parameters if name != "schema"]
    named = [value for name, value in parameters if name == "schema"]
    return _joined(base, kept), named[-1] if named else ""


def with_schema(url: str, schema: str) -> str:
    """A URL with another schema in place of what it named."""
    base, parameters = _split(split_schema(url)[0])
    return _joined(base, [*parameters, ("schema", schema)])


def without_password(url: str) -> str:
    """A URL that can be kept beside results: whoever uses it has the password from elsewhere."""
    base, parameters = _split(url)
    scheme, _, rest = base.partition("://")
    user, at, host = rest.rpartition("@")
    return _joined(
        f"{scheme}://{user.partition(':')[0]}{at}{host}",
        [(name, value) for name, value in parameters if name not in _SECRETS],
    )


def _split(url: str) -> tuple[str, list[tuple[str, str]]]:
    base, _, query = url.partition("?")
    parts = [part.partition("=") for part in query.split("&") if part]
    return base, [(name, value) for name, _, value in parts]


def _joined(base: str, parameters: list[tuple[str, str]]) -> str:
    query = "&".join(f"{name}={value}" for name, value in parameters)
    return f"{base}?{query}" if query else base
