"""Writes the list of components (SBOM, CycloneDX) of what a lock file installs.

    python tools/components.py LOCK PYTHON OUTPUT

PYTHON is an interpreter into whose environment LOCK was installed; `cyclonedx-py` reads names,
versions, licences and dependencies off it. Links are left out: they say nothing of what is
installed, and change.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path


def pinned(lock: str) -> set[str]:
    """`name==version` of all that a lock file of pip installs."""
    return set(re.findall(r"^([\w.-]+==\S+) \\$", lock, re.MULTILINE))


def main(lock: Path, python: Path, output: Path) -> None:
    """Write the list."""
    command = [
        *(str(Path(sys.executable).parent / "cyclonedx-py"), "environment", str(python)),
        *("--pyproject", "pyproject.toml", "--output-reproducible", "--of", "JSON", "-o", "-"),
    ]
    done = subprocess.run(command, check=True, capture_output=True)  # noqa: S603
    made = json.loads(done.stdout)
    own = made["metadata"]["component"]
    for each in (own, *made["metadata"]["tools"]["components"], *made["components"]):
        each.pop("externalReferences", None)
    installed = {
        f"{re.sub(r'[-_.]+', '-', each['name']).lower()}=={each['version']}": each
        for each in made["components"]
    }
    locked = pinned(lock.read_text(encoding="utf-8"))
    if missing := sorted(locked - installed.keys()):
        raise SystemExit(f"of the lock, not installed: {', '.join(missing)}")
    made["components"] = [installed[name] for name in sorted(locked)]
    kept = {each["bom-ref"] for each in (own, *made["components"])}
    made["dependencies"] = [
        {**edge, "dependsOn": [ref for ref in edge.get("dependsOn", ()) if ref in kept]}
        for edge in made["dependencies"]
        if edge["ref"] in kept
    ]
    output.write_text(json.dumps(made, indent=1, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(*(Path(argument) for argument in sys.argv[1:]))
