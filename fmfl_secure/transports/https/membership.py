"""How a site comes to trust a newer list of members: by itself, or through its own people."""

from __future__ import annotations

import base64
import binascii
import logging
import threading
from collections.abc import Callable

from fmfl_secure.errors import NotApproved, ServiceError
from fmfl_secure.parties.membership import MembershipFolder
from fmfl_secure.provisioning.kit import Kit
from fmfl_secure.settings.service import ClientSettings, load_settings
from fmfl_secure.transports.https.client import HttpsTransport
from fmfl_secure.transports.https.metrics import ClientMetrics

_LOG = logging.getLogger("fmfl_secure.transports.https.membership")


def follow_removals(held: MembershipFolder, number: int, fetch: Callable[[int], list[str]]) -> None:
    """Take over lists that only remove, up to one; any other waits for this site's people.

    A party that has none yet, since it drew its own keys, takes those that come to whom it pinned.

    Args:
        held: The site's own.
        number: Of the server's last list.
        fetch: Lists after a number, as the server sends them.

    Raises:
        NotApproved: A list brings somebody new, or a new key.
        ServiceError: What the server sends is malformed.
        ConfigError: This party has no list, and the server's come to others than it pinned.
        AggregationError: A list does not follow on the one held here.
    """
    if held.last() is None and number:
        held.adopt(decode_lists(fetch(0)))
    while len(held.lists()) < number:
        missing = decode_lists(fetch(len(held.lists())))
        if not missing:
            return
        change = held.change(missing[0])
        if change.added:
            names = ", ".join(party.name for party in change.added)
            raise NotApproved(
                f"membership list {change.number} brings {names}",
                hint="Compare fingerprints, then: fmfl-secure members approve KIT",
            )
        held.approve(missing[0])
        _LOG.warning("%s left the federation", ", ".join(change.removed))


def newer_lists(kit: Kit) -> list[bytes]:
    """The server's lists after the one that is held; not verified yet.

    Raises:
        ServiceError: The server does not answer, or refuses.
    """
    settings = load_settings(kit.service_file, ClientSettings)
    stopping = threading.Event()
    stopping.set()  # one try: somebody is waiting at the keyboard
    with HttpsTransport(
        settings.server, kit.tls, metrics=ClientMetrics(), stopping=stopping
    ) as transport:
        return decode_lists(transport.membership(len(kit.membership.lists())))


def decode_lists(lists: list[str]) -> list[bytes]:
    """Lists as they come from the server.

    Raises:
        ServiceError: They are no base64.
    """
    try:
        return [base64.b64decode(text, validate=True) for text in lists]
    except binascii.Error as error:
        raise ServiceError("the server's membership lists are malformed") from error
