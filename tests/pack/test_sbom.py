"""What scanners see: the SBOM beside an archive, and the metadata of its packages without their code."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from helpers.processes import result_of, run
from rig.environment import environment
from rig.sites import write_tree

PACKAGES = {
    "Plain_Name": ("1.0", "License-Expression: MIT OR Apache-2.0\n"),
    "old": ("2.1", "License: BSD-3-Clause\n"),
    "long": ("3", "License: A licence\n   of several lines\nClassifier: License :: OSI Approved :: MIT License\n"),
    "classified": ("4", "Classifier: License :: OSI Approved :: BSD License\nClassifier: License :: Other\n"),
    "unknown": ("5", "License: UNKNOWN\n"),
}


@pytest.fixture
def site(tmp_path: Path) -> Path:
    files: dict[str, Any] = {}
    for name, (version, more) in PACKAGES.items():
        at = f"{name.lower()}-{version}.dist-info"
        text = f"Metadata-Version: 2.4\nName: {name}\nVersion: {version}\nSummary: it is {name}\n{more}\n"
        files |= {f"{name.lower()}.py": "VALUE = 1\n", f"{at}/METADATA": text, f"{at}/licenses/LICENSE": "a licence\n"}
    files["egg-6.egg-info"] = "Metadata-Version: 1.0\nName: egg\nVersion: 6\nLicense: ISC\n"
    files["broken-7.dist-info/METADATA"] = "no metadata"
    return write_tree(tmp_path / "site", files)


def packed(site: Path, *options: object, code: int = 0, **variables: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "unpackenv", "pack", site, "-o", site.parent / "packages.tar.zst", "--level", 1]
    done = run([*command, *options], environment(**variables))
    assert done.returncode == code, done.stderr
    return done


def sbom_of(site: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((site.parent / "packages.tar.zst.cdx.json").read_text())
    return found


def test_each_package_with_its_licences(site: Path) -> None:
    done = packed(site)
    assert f"  SBOM {site.parent}/packages.tar.zst.cdx.json\n" in done.stdout
    components = {each["name"]: each for each in sbom_of(site)["components"]}
    assert {name: each["purl"] for name, each in components.items()} == {
        "Plain_Name": "pkg:pypi/plain-name@1.0", "old": "pkg:pypi/old@2.1", "long": "pkg:pypi/long@3",
        "classified": "pkg:pypi/classified@4", "unknown": "pkg:pypi/unknown@5", "egg": "pkg:pypi/egg@6",
    }  # fmt: skip
    assert components["old"]["version"] == "2.1"
    assert components["old"]["description"] == "it is old"
    assert {name: each.get("licenses") for name, each in components.items()} == {
        "Plain_Name": [{"expression": "MIT OR Apache-2.0"}],
        "old": [{"license": {"id": "BSD-3-Clause"}}],
        "long": [{"license": {"name": "MIT License"}}],
        "classified": [{"license": {"name": "BSD License"}}, {"license": {"name": "Other"}}],
        "unknown": None,
        "egg": [{"license": {"id": "ISC"}}],
    }


def test_it_is_valid_and_says_of_which_archive_it_is(site: Path) -> None:
    done = packed(site)
    text = (site.parent / "packages.tar.zst.cdx.json").read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    metadata = sbom_of(site)["metadata"]
    assert metadata["component"]["name"] == "packages.tar.zst"
    digest = done.stdout.rpartition("digest ")[2].strip()
    assert {"name": "unpackenv:digest", "value": digest} in metadata["component"]["properties"]
    depends = {each["ref"]: each.get("dependsOn", []) for each in sbom_of(site)["dependencies"]}
    assert len(depends[metadata["component"]["bom-ref"]]) == 6


def test_another_library_reads_it(site: Path) -> None:
    """One that has nothing in common with the library that writes it."""
    packed(site)
    path = str(site.parent / "packages.tar.zst.cdx.json")
    code = f"from lib4sbom.parser import SBOMParser\nparser = SBOMParser()\nparser.parse_file({path!r})\n"
    found = {each["name"]: each for each in result_of(f"{code}result = parser.get_packages()")}
    assert {name: found[name]["version"] for name in PACKAGES} == {name: each[0] for name, each in PACKAGES.items()}
    assert found["old"]["licensedeclared"] == "BSD-3-Clause"
    assert ["PACKAGE_MANAGER", "purl", "pkg:pypi/plain-name@1.0"] in found["Plain_Name"]["externalreference"]


def test_the_same_pack_gives_the_same_bytes(site: Path) -> None:
    path = site.parent / "packages.tar.zst.cdx.json"
    packed(site)
    first = path.read_bytes()
    packed(site)
    assert path.read_bytes() == first
    packed(site, "--exclude", "old.py")
    assert path.read_bytes() != first


def test_what_is_not_packed_is_not_listed(site: Path) -> None:
    packed(site, "--exclude", "old*", "--exclude", "egg-*")
    assert {"old", "egg"}.isdisjoint(each["name"] for each in sbom_of(site)["components"])


def test_without_it(site: Path) -> None:
    done = packed(site, "--no-sbom")
    assert "SBOM" not in done.stdout
    assert not (site.parent / "packages.tar.zst.cdx.json").exists()


def test_without_the_library(site: Path) -> None:
    hides = write_tree(site.parent / "hides", {"sitecustomize.py": "import sys; sys.modules['cyclonedx'] = None\n"})
    done = packed(site, PYTHONPATH=f"{hides}:{environment()['PYTHONPATH']}")
    assert "  no SBOM: that takes the extra unpackenv[build]\n" in done.stdout


def test_a_library_that_does_not_work(site: Path) -> None:
    """It is no reason to write none without a word: it was asked for."""
    broken = write_tree(site.parent / "broken", {"cyclonedx/__init__.py": "raise ImportError('half installed')\n"})
    done = packed(site, code=125, PYTHONPATH=f"{broken}:{environment()['PYTHONPATH']}")
    assert "half installed" in done.stderr
    assert "--no-sbom" in done.stderr
    assert list(site.parent.glob("packages*")) == []


def test_a_stop_signal_that_the_library_catches(site: Path) -> None:
    """Some modules catch every error while they are imported."""
    text = """
import os, signal
try:
    os.kill(os.getpid(), signal.SIGTERM)
except BaseException:
    raise ImportError
"""
    catches = write_tree(site.parent / "catches", {"cyclonedx/__init__.py": text})
    packed(site, code=128 + signal.SIGTERM, PYTHONPATH=f"{catches}:{environment()['PYTHONPATH']}")
    assert list(site.parent.glob("packages*")) == []


# --- metadata ------------------------------------------------------------------------------------


def test_metadata_without_code(site: Path, tmp_path: Path) -> None:
    packed(site, "--metadata-to", tmp_path / "metadata", "--exclude", "old*")
    names = {path.name for path in (tmp_path / "metadata").iterdir()}
    assert names == {path.name for path in site.iterdir() if "-info" in path.name and not path.name.startswith("old")}
    assert (tmp_path / "metadata/plain_name-1.0.dist-info/licenses/LICENSE").read_text() == "a licence\n"
    found = {each.metadata["Name"]: each.version for each in distributions(path=[str(tmp_path / "metadata")])}
    assert found.pop(None, None) is None
    assert found == {**{name: each for name, (each, _) in PACKAGES.items() if name != "old"}, "egg": "6"}


def test_pip_lists_it(site: Path, tmp_path: Path) -> None:
    for path in site.glob("broken*/*"):
        path.unlink()
    packed(site, "--metadata-to", tmp_path / "metadata")
    command = [sys.executable, "-m", "pip", "list", "--path", tmp_path / "metadata", "--format", "json"]
    listed = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert {each["name"]: each["version"] for each in listed} == {
        **{name: version for name, (version, _) in PACKAGES.items()}, "egg": "6",
    }  # fmt: skip


def test_a_directory_in_use_is_refused_before_the_work(site: Path) -> None:
    done = packed(site, "--metadata-to", site, code=125)
    assert "exists and is not empty. Name another directory, or remove it" in done.stderr
    assert not (site.parent / "packages.tar.zst").exists()
