"""Where a base model was published, and under which licence, as far as its folder tells."""

from __future__ import annotations

import re
from pathlib import Path

from fmfl_secure.models.base import BaseModel

_MINILM_ID = "sentence-transformers/all-MiniLM-L6-v2"
# The hub's own cache: models--OWNER--NAME/snapshots/REVISION.
_CACHED = re.compile(r"models--([\w.-]+?)--([\w.-]+)")
_LICENCE = re.compile(r"^license:[ \t]*[\"']?([\w.-]+)[\"']?[ \t]*$", re.MULTILINE)


def hub_id(base: BaseModel) -> str:
    """`owner/name` of a model on a hub; empty where its folder does not say."""
    if base.name == "minilm":
        return _MINILM_ID
    if base.path.parent.name == "snapshots":
        found = _CACHED.fullmatch(base.path.parent.parent.name)
        return "/".join(found.groups()) if found else ""
    return ""


def licence(folder: Path) -> str:
    """The licence's identifier in the front matter of a model's README; empty without one."""
    try:
        text = (folder / "README.md").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    parts = text.split("---", 2)
    found = _LICENCE.search(parts[1]) if len(parts) == 3 and not parts[0].strip() else None
    return found[1] if found else ""
