"""What is said in more than one place is said alike: dependencies and versions."""

import re
import sys
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pytest brings it along

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
ENVIRONMENT = yaml.safe_load((ROOT / "environment.yml").read_text())
CONDA_NAMES = {"pytorch": "torch"}


def bounds(requirements):
    """Name to version bounds; the bounds as a set, because their order says nothing."""
    parsed = [Requirement(line) for line in requirements]
    assert len({r.name for r in parsed}) == len(parsed), "a package is named twice"
    return {canonicalize_name(CONDA_NAMES.get(r.name, r.name)): set(map(str, r.specifier)) for r in parsed}


def conda_and_pip():
    conda = [entry for entry in ENVIRONMENT["dependencies"] if isinstance(entry, str)]
    (pip,) = (entry["pip"] for entry in ENVIRONMENT["dependencies"] if isinstance(entry, dict))
    return conda, pip


def locked():
    """Name to locked versions; there can be several, for different systems or Pythons."""
    versions = {}
    for line in (ROOT / "requirements.lock").read_text().splitlines():
        if line and not line.startswith("#"):
            requirement = Requirement(line)
            (specifier,) = requirement.specifier
            assert specifier.operator == "==", line
            versions.setdefault(canonicalize_name(requirement.name), []).append(Version(specifier.version))
    return versions


def test_environment_yml_has_the_bounds_of_pyproject():
    conda, pip = conda_and_pip()
    assert "pip" in conda
    assert "-e ." in pip
    named = bounds([entry for entry in [*conda, *pip] if entry not in ("pip", "-e .")])
    assert named.pop("python") == {PROJECT["requires-python"]}
    assert named == bounds(PROJECT["dependencies"])


def test_environment_yml_is_named_and_takes_one_channel():
    assert ENVIRONMENT["name"] == "adapters-lesson"
    assert ENVIRONMENT["channels"] == ["conda-forge"]


@pytest.mark.parametrize("extra", ["dependencies", *PROJECT["optional-dependencies"]])
def test_every_dependency_is_locked_within_its_bounds(extra):
    versions = locked()
    for line in PROJECT["optional-dependencies"].get(extra, PROJECT["dependencies"]):
        requirement = Requirement(line)
        if requirement.name != PROJECT["name"]:  # an extra that includes another
            found = versions.get(canonicalize_name(requirement.name))
            assert found, f"{line} is not in requirements.lock: make lock"
            assert all(version in requirement.specifier for version in found), f"{line}, locked: {found}"


def test_the_lock_names_versions_and_no_place():
    text = (ROOT / "requirements.lock").read_text()
    assert "\ntorch==2.13.0\n" in text
    assert not re.search(r"://|(?<!\w)@|^\s*-", text, re.MULTILINE)  # an address, or an option such as --index-url
    assert "make lock" in text


def test_one_version_everywhere():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert str(citation["version"]) == newest[1] == PROJECT["version"]
    hub = ROOT / "classroom" / "hub"
    values = yaml.safe_load((hub / "values.yaml").read_text())
    image = values["singleuser"]["image"]
    assert image["tag"] == PROJECT["version"]
    assert {one["image"] for one in values["hub"]["extraContainers"]} == {f"{image['name']}:{image['tag']}"}
    assert f"-t {image['name']}:{image['tag']} ." in (hub / "Dockerfile").read_text()
    wheels = re.findall(r"adapters_lesson-(\S+)-py3", (ROOT / "README.md").read_text())
    assert set(wheels) == {PROJECT["version"]}
