"""A site's people look at the server's newer lists of members, before they trust them."""

from __future__ import annotations

import base64
import binascii
import threading

from fmfl_secure.service.client import Line
from fmfl_secure.service.errors import ServiceError
from fmfl_secure.service.kit import Kit
from fmfl_secure.service.metrics import ClientMetrics
from fmfl_secure.service.settings import ClientSettings, load_settings


def newer_lists(kit: Kit) -> list[bytes]:
    """The server's lists after the one that is held; not verified yet.

    Raises:
        ServiceError: The server does not answer, or refuses.
    """
    settings = load_settings(kit.service_file, ClientSettings)
    stopping = threading.Event()
    stopping.set()  # one try: somebody is waiting at the keyboard
    with Line(settings.server, kit.tls, metrics=ClientMetrics(), stopping=stopping) as line:
        return decode_lists(line.membership(len(kit.membership.lists())))


def decode_lists(lists: list[str]) -> list[bytes]:
    """Lists as they come from the server.

    Raises:
        ServiceError: They are no base64.
    """
    try:
        return [base64.b64decode(text, validate=True) for text in lists]
    except binascii.Error as error:
        raise ServiceError("the server's membership lists are malformed") from error
