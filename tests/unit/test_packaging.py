"""What is installed: bounds, lock and list of components agree with each other."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from fmfl_secure import __version__
from fmfl_secure.extras import how_to_install
from fmfl_secure.models.importing.packages import PACKAGED

ROOT = Path(__file__).parents[2]
EXTRAS = ("server", "postgresql", "dicom", "gguf", "onnx")
# The newest huggingface-hub, which no bound of ours is about, asks for a newer one.
ASKED_FOR_NEWER = frozenset({"typer"})
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = SETTINGS["project"]


def declared(*extras: str) -> Iterator[tuple[str, str]]:
    """Names and bounds that pyproject.toml declares."""
    wanted = [*PROJECT["dependencies"]]
    for extra in extras:
        wanted += PROJECT["optional-dependencies"][extra]
    for requirement in wanted:
        found = re.match(r"([\w.-]+)(?:\[[\w,-]+\])?(.*)\Z", requirement)
        assert found is not None, requirement
        if found[1] != PROJECT["name"]:
            yield found[1].lower(), found[2]


def pinned(file: str) -> dict[str, str]:
    text = (ROOT / file).read_text()
    return {
        name.lower(): version
        for name, version in re.findall(r"^([\w.-]+)==([^\s\\]+)", text, re.MULTILINE)
    }


def test_the_version_is_the_same_wherever_it_stands() -> None:
    listed = json.loads((ROOT / "deploy/sbom.cdx.json").read_text())
    bundle = ROOT / "fmfl_secure/transports/flower/bundle/pyproject.toml"
    newest = re.search(r"^## (\S+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest is not None
    assert __version__ == PROJECT["version"]
    assert __version__ == tomllib.loads(bundle.read_text())["project"]["version"]
    assert __version__ == listed["metadata"]["component"]["version"]
    assert newest[1] == ("Unreleased" if ".dev" in __version__ else __version__)


@pytest.mark.parametrize("package", ["fmfl_secure", "privacy", "aggregation"])
def test_whatever_lies_in_a_package_is_installed_with_it(package: str) -> None:
    tools = SETTINGS["tool"]["setuptools"]
    assert f"{package}*" in tools["packages"]["find"]["include"]
    data = {
        file
        for pattern in tools["package-data"][package]
        for file in (ROOT / package).glob(pattern)
    }
    for file in (ROOT / package).rglob("*"):
        if file.is_dir() or "__pycache__" in file.parts:
            continue
        module = file.suffix == ".py" and (file.parent / "__init__.py").exists()
        assert module or file in data, f"[tool.setuptools.package-data]: {file}"


def test_flower_is_tested_at_both_ends_of_its_range() -> None:
    (bounds,) = (bounds for name, bounds in declared("flower") if name == "flwr")
    found = re.fullmatch(r">=(\d+\.\d+),<1\.(\d+)", bounds)
    assert found is not None, bounds
    assert pinned("constraints-flower.txt")["flwr"].startswith(f"1.{int(found[2]) - 1}.")
    assert f"make test-flower FLWR={found[1]}.0," in (ROOT / "Makefile").read_text()


def test_what_a_document_tells_to_install_is_there() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *ROOT.glob("examples/*/README.md")]
    text = "\n".join(page.read_text() for page in pages)
    extras = {name for names in re.findall(r"'\.\[([\w,-]+)\]'", text) for name in names.split(",")}
    assert extras <= PROJECT["optional-dependencies"].keys()
    assert "server" in extras
    carried = {packaged.distribution for packaged in PACKAGED.values()}
    assert carried >= set(re.findall(r"--no-deps ([\w-]+)==([\d.]+)", text)) != set()


@pytest.mark.parametrize(("name", "bounds"), list(declared(*EXTRAS)), ids=lambda value: value)
def test_every_package_has_an_oldest_and_a_newest(name: str, bounds: str) -> None:
    found = re.match(r">=([\d.]+),<([\d.]+)\Z|==([\d.]+)\Z", bounds)
    assert found is not None, f"{name} {bounds}"
    oldest = found[1] or found[3]
    version = pinned("constraints-oldest.txt")[name]
    if name in ASKED_FOR_NEWER:
        assert [int(part) for part in version.split(".")] > [int(n) for n in oldest.split(".")]
        return
    # The oldest that there is: 2.0 is 2.0.0, and 3.2 may never have been without a third figure.
    assert version.split(".")[: len(oldest.split("."))] == oldest.split("."), version


def test_what_was_tested_is_what_is_locked() -> None:
    locked, tested = pinned("deploy/requirements.lock"), pinned("constraints.txt")
    for name, _ in declared("server", "minilm"):
        assert locked[name].removesuffix("+cpu") == tested[name], name


def test_each_locked_package_has_a_digest() -> None:
    text = (ROOT / "deploy/requirements.lock").read_text()
    assert text.count(" \\\n    --hash=sha256:") >= len(pinned("deploy/requirements.lock")) > 50
    for block in re.split(r"\n(?=[\w])", text.strip()):
        assert "--hash=sha256:" in block, block


def test_the_list_of_components_is_that_of_the_lock() -> None:
    listed = json.loads((ROOT / "deploy/sbom.cdx.json").read_text())
    assert (listed["bomFormat"], listed["metadata"]["component"]["name"]) == (
        "CycloneDX",
        "fmfl-secure",
    )
    found = {
        re.sub(r"[-_.]+", "-", each["name"]).lower(): each["version"]
        for each in listed["components"]
    }
    assert found == pinned("deploy/requirements.lock")
    refs = {each["bom-ref"] for each in listed["components"]} | {"root-component"}
    assert {edge["ref"] for edge in listed["dependencies"]} == refs
    needs = {edge["ref"]: edge["dependsOn"] for edge in listed["dependencies"]}
    names = {re.sub(r"==.*", "", ref).lower().replace("_", "-") for ref in needs["root-component"]}
    assert {name for name, _ in declared()} <= names


def test_what_an_extra_needs_is_named_without_an_index_entry_of_ours() -> None:
    server = PROJECT["optional-dependencies"]["server"]
    said = how_to_install("server")
    assert all(re.split("[<>=]", requirement)[0] in said for requirement in server)
    both = how_to_install("flower")
    assert "flwr[simulation]" in both
    assert "fastapi" in both, "an extra of an extra"
    assert "fmfl-secure" not in both
    with pytest.raises(ValueError, match="no extra"):
        how_to_install("servre")
