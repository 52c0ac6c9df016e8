"""Draw the diagrams of the documentation as SVG: `python tools/docs/diagrams.py`.

The sources are the tables below. They are drawn with the standard library alone, so the same source
gives the same bytes everywhere, and a test keeps the committed pictures equal to it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

IMAGES = Path(__file__).parents[2] / "docs" / "images"
_INK, _PAPER, _LINE, _BOX, _NOTE = "#1b1b1f", "#ffffff", "#5b6270", "#eef1f6", "#fbf4dc"
_FONT = "font-family='Helvetica, Arial, sans-serif' font-size='13'"

ROUND_PARTIES = ("Coordinator", "Sites", "Decryptor", "Aggregator")
# (from, to, text); where both are one party, a step of its own.
ROUND = (
    ("Coordinator", "Sites", "1 plan"),
    ("Coordinator", "Decryptor", "1 plan"),
    ("Sites", "Sites", "2 admit; 3 charge, train, store"),
    ("Decryptor", "Coordinator", "4 announcement: a fresh key"),
    ("Sites", "Coordinator", "4 ready: single-use key"),
    ("Coordinator", "Sites", "4 cohort"),
    ("Coordinator", "Decryptor", "4 cohort"),
    ("Coordinator", "Aggregator", "1 plan, 4 cohort"),
    ("Sites", "Sites", "4 exchange: ML-KEM ciphertexts (hybrid plans)"),
    ("Sites", "Aggregator", "5 upload: masked, encrypted chunks, sealed secret"),
    ("Aggregator", "Decryptor", "6 opening list, secrets"),
    ("Decryptor", "Sites", "6 confirmation"),
    ("Sites", "Aggregator", "6 opening: self-mask seed, masked tags"),
    ("Aggregator", "Decryptor", "7 sum"),
    ("Decryptor", "Sites", "8 release"),
    ("Decryptor", "Coordinator", "8 release"),
    ("Sites", "Coordinator", "9 projections, if norms are checked"),
    ("Sites", "Sites", "9 verify, apply"),
    ("Sites", "Coordinator", "9 verdict: the adapter after, signed"),
    ("Coordinator", "Coordinator", "9 verify, apply"),
)


@dataclass(frozen=True, slots=True)
class Box:
    """A party of the deployment diagram: where it stands and what it says."""

    x: int
    y: int
    width: int
    lines: tuple[str, ...]

    @property
    def height(self) -> int:
        """In pixels."""
        return 22 + 18 * len(self.lines)


DEPLOYMENT = {
    "provisioning": Box(20, 20, 300, ("Provisioning, offline", "authority/ca.key")),
    "server": Box(
        420, 20, 360,
        ("Server, port 8443 open", "coordinator and aggregator, an Ed25519 key each",
         "run/state.sqlite, service.sqlite, anchors.sqlite", "127.0.0.1:9443: page, metrics"),
    ),
    "site": Box(
        20, 200, 300,
        ("Each site, no port open", "Ed25519 key, storage.key",
         "one-attempt keys in memory only", "ledger, journal, updates, anchors .sqlite",
         "127.0.0.1:9445 on: page, metrics"),
    ),
    "decryptor": Box(
        350, 200, 260,
        ("Decryptor, no port open", "Ed25519 key", "keys of an attempt in memory only",
         "journal.sqlite", "127.0.0.1:9444: page, metrics"),
    ),
    "custodian": Box(
        640, 200, 240,
        ("Each custodian (optional)", "no port open, Ed25519 key",
         "keys of an attempt in memory only", "journal.sqlite"),
    ),
}  # fmt: skip


def _svg(width: int, height: int, title: str, body: list[str]) -> str:
    return "\n".join(
        [
            (
                f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width} {height}' "
                f"width='{width}' height='{height}' role='img' aria-label='{escape(title)}'>"
            ),
            f"<title>{escape(title)}</title>",
            (
                "<defs><marker id='tip' viewBox='0 0 8 8' refX='8' refY='4' markerWidth='8' "
                "markerHeight='8' orient='auto'>"
                f"<path d='M0 0L8 4L0 8z' fill='{_LINE}'/></marker></defs>"
            ),
            f"<rect width='{width}' height='{height}' rx='6' fill='{_PAPER}'/>",
            *body,
            "</svg>",
            "",
        ]
    )


def _text(x: float, y: float, text: str, *, anchor: str = "middle", bold: bool = False) -> str:
    weight = " font-weight='bold'" if bold else ""
    return (
        f"<text x='{x:g}' y='{y:g}' text-anchor='{anchor}' fill='{_INK}' {_FONT}{weight}>"
        f"{escape(text)}</text>"
    )


def _arrow(x1: float, y1: float, x2: float, y2: float, *, dashed: bool = False) -> str:
    dash = " stroke-dasharray='5 4'" if dashed else ""
    return (
        f"<line x1='{x1:g}' y1='{y1:g}' x2='{x2:g}' y2='{y2:g}' stroke='{_LINE}' "
        f"stroke-width='1.3'{dash} marker-end='url(#tip)'/>"
    )


def sequence() -> str:
    """One round, message by message."""
    gap, top, step = 270, 64, 34
    place = {name: 130 + gap * number for number, name in enumerate(ROUND_PARTIES)}
    width, height = 260 + gap * (len(ROUND_PARTIES) - 1), top + step * len(ROUND) + 30
    body = []
    for name, x in place.items():
        body.append(f"<rect x='{x - 70}' y='14' width='140' height='28' rx='4' fill='{_BOX}'/>")
        body.append(_text(x, 33, name, bold=True))
        body.append(
            f"<line x1='{x}' y1='42' x2='{x}' y2='{height - 14}' stroke='{_LINE}' "
            "stroke-width='0.8' stroke-dasharray='2 4'/>"
        )
    for number, (sender, receiver, text) in enumerate(ROUND):
        y, x1, x2 = top + step * (number + 0.6), place[sender], place[receiver]
        if sender == receiver:
            half = 4 + 3.5 * len(text)
            body.append(
                f"<rect x='{x1 - half:g}' y='{y - 13:g}' width='{2 * half:g}' height='22' rx='4' "
                f"fill='{_NOTE}' stroke='{_LINE}' stroke-width='0.6'/>"
            )
            body.append(_text(x1, y + 3, text))
            continue
        # A label lies on the first stretch of its arrow, clear of the lifelines it crosses.
        near = x1 + (gap / 2 if x2 > x1 else -gap / 2)
        middle = (x1 + x2) / 2 if abs(x2 - x1) == 2 * gap and len(text) > 36 else near
        half = 3 + 3.2 * len(text)
        body.append(_arrow(x1, y + 4, x2, y + 4))
        body.append(
            f"<rect x='{middle - half:g}' y='{y - 15:g}' width='{2 * half:g}' height='16' "
            f"fill='{_PAPER}'/>"
        )
        body.append(_text(middle, y - 2, text))
    return _svg(width, height, "One round of secure aggregation, message by message", body)


def deployment() -> str:
    """Who runs what, and who connects to whom."""
    body = []
    boxes = DEPLOYMENT
    server, kits = boxes["server"], boxes["provisioning"]
    for name, share in (("site", 0.12), ("decryptor", 0.45), ("custodian", 0.85)):
        box = boxes[name]
        body.append(
            _arrow(box.x + box.width * 0.6, box.y, server.x + server.width * share,
                   server.y + server.height)
        )  # fmt: skip
    body.append(_text(648, 172, "TLS 1.3, certificates on both sides"))
    body.append(_arrow(kits.x + kits.width, 50, server.x, 50, dashed=True))
    body.append(_text(370, 42, "kit"))
    body.append(_arrow(80, kits.y + kits.height, 80, boxes["site"].y, dashed=True))
    body.append(_text(90, 140, "a kit for each party, brought by hand", anchor="start"))
    for box in boxes.values():
        body.append(
            f"<rect x='{box.x}' y='{box.y}' width='{box.width}' height='{box.height}' rx='6' "
            f"fill='{_BOX}' stroke='{_LINE}' stroke-width='0.8'/>"
        )
        for number, line in enumerate(box.lines):
            body.append(
                _text(box.x + 12, box.y + 24 + 18 * number, line, anchor="start", bold=not number)
            )
    return _svg(900, 340, "Who runs what, and who connects to whom", body)


DRAWINGS = {"round.svg": sequence, "deployment.svg": deployment}


def main() -> None:
    """Write every drawing."""
    for name, draw in DRAWINGS.items():
        (IMAGES / name).write_text(draw(), encoding="utf-8")


if __name__ == "__main__":
    main()
