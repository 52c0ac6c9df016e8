"""What the documentation site needs beyond mkdocs' own steps.

- SECURITY.md, CHANGELOG.md and CONTRIBUTING.md stay where readers of the repository look for them,
  and are pages of the site as well.
- Links from a page to something in the repository that is no page become text with its path.
- A built page that would ask another server for anything ends the build.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
# Page of the site: file of the repository.
BORROWED = {
    "security.md": "SECURITY.md",
    "changelog.md": "CHANGELOG.md",
    "contributing.md": "CONTRIBUTING.md",
}
_LINK = re.compile(r"(?P<bang>!?)\[(?P<text>[^\]\n]*)\]\((?P<target>[^)\s]+)\)")
_FOREIGN = re.compile(
    r"""<(?:script|img|iframe|source|video|audio)\b[^>]*\ssrc=["']?(?:https?:)?//[^"'\s>]+"""
    r"""|<link\b[^>]*\shref=["']?(?:https?:)?//[^"'\s>]+"""
    r"""|url\(["']?(?:https?:)?//[^)]+|@import\s+["'](?:https?:)?//[^"']+"""
)


def on_files(files: Files, config: Any) -> Files:
    """Add the borrowed pages."""
    for page, source in BORROWED.items():
        content = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=content))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:  # noqa: ARG001
    """Point links at pages of the site, and show what is no page of it as a path."""
    own = page.file.src_uri
    folder = "" if own in BORROWED else posixpath.join("docs", posixpath.dirname(own))
    borrowed = {source: name for name, source in BORROWED.items()}

    def rewrite(found: re.Match[str]) -> str:
        path, hash_, anchor = found["target"].partition("#")
        if not path or "://" in path or path.startswith("mailto:"):
            return found[0]
        place = posixpath.normpath(posixpath.join(folder, path))
        target = borrowed.get(place) or place.removeprefix("docs/")
        if place in borrowed or (place.startswith("docs/") and files.get_file_from_path(target)):
            near = posixpath.relpath(target, posixpath.dirname(own) or ".")
            return f"{found['bang']}[{found['text']}]({near}{hash_}{anchor})"
        if found["bang"] or not (ROOT / place).exists():
            return found[0]  # mkdocs warns of it
        plain = found["text"].strip("`").rstrip("/")
        return f"`{place}`" if plain in place else f"{found['text']} (`{place}`)"

    return _LINK.sub(rewrite, markdown)


def on_post_build(config: Any) -> None:
    """Refuse pages and styles that would load something from elsewhere."""
    found = []
    for path in sorted(Path(config["site_dir"]).rglob("*")):
        if path.suffix not in {".html", ".css"}:
            continue
        text = path.read_text(encoding="utf-8")
        found += [f"{path.name}: {match}" for match in _FOREIGN.findall(text)]
        if 'class="mermaid"' in text:  # the theme would fetch a renderer for it
            found.append(f"{path.name}: a mermaid diagram")
    if found:
        raise PluginError("pages would load from elsewhere: " + "; ".join(found))
