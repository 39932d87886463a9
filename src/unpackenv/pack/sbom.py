"""Tell scanners which packages an archive holds: a CycloneDX SBOM beside it, and the packages' metadata without code.

The document depends on the packages and the archive alone: the same pack writes the same bytes. It needs
`cyclonedx-python-lib`, of the extra `build`.
"""

from __future__ import annotations

import os
import re
import shutil
import uuid
from collections.abc import Iterator
from email.message import Message
from importlib.metadata import Distribution
from importlib.util import find_spec
from typing import TYPE_CHECKING

import unpackenv
from unpackenv.errors import PackError
from unpackenv.pack.entries import Tree
from unpackenv.pack.source import PackSource, names_in

if TYPE_CHECKING:
    from cyclonedx.model.component import Component
    from cyclonedx.model.license import DisjunctiveLicense, LicenseExpression

SUFFIX = ".cdx.json"
_METADATA = (".dist-info", ".egg-info")
_NAMESPACE = uuid.UUID("6a2f41a3-c54c-fce8-32d2-0324e1c32e22")
_LICENCE = "License :: "
_LONGEST_NAME = 64  # of a licence; some packages have its whole text there


def is_available() -> bool:
    """Whether the library is installed; raises `PackError` if it does not work."""
    if find_spec("cyclonedx") is None:
        return False
    try:
        import cyclonedx.output.json  # noqa: F401
    except ImportError as error:
        raise PackError(
            f"cannot be imported, and writes the SBOM: {error}",
            where="cyclonedx",
            hint="Install unpackenv[build] anew, or pack with --no-sbom",
        ) from error
    return True


def write(archive: str, digest: str, source: PackSource, tree: Tree) -> str:
    """Write the SBOM of an archive of a tree beside it, and return its path; raises `OSError`."""
    from cyclonedx.model import Property
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.output.json import JsonV1Dot6

    packages = {component.purl: component for component in _components(source, tree)}.values()
    bom = Bom(components=packages, serial_number=uuid.uuid5(_NAMESPACE, digest))
    properties = [Property(name="unpackenv:digest", value=digest)]
    described = Component(
        name=os.path.basename(archive), type=ComponentType.FILE, bom_ref="archive", properties=properties
    )
    bom.metadata.component = described
    bom.register_dependency(described, packages)
    tool = Component(name="unpackenv", version=unpackenv.__version__, type=ComponentType.APPLICATION, bom_ref="tool")
    bom.metadata.tools.components.add(tool)
    bom.metadata.timestamp = None  # the same pack is to write the same bytes
    text = JsonV1Dot6(bom).output_as_string(indent=1)
    path = archive + SUFFIX
    partial = f"{path}.{os.getpid()}.partial"
    with open(partial, "w", encoding="utf-8") as file:
        file.write(f"{text}\n")
    os.replace(partial, path)
    return path


def _metadata(source: PackSource, tree: Tree) -> Iterator[str]:
    """Yield the paths of the metadata of all packages in a tree: directories, or the files of old packages."""
    packed = {entry.path for entry in tree.entries}
    for import_path in source.import_paths:
        for name in names_in(os.path.join(source.root, import_path)):
            path = os.path.join(import_path, name)
            if name.endswith(_METADATA) and path in packed:
                yield os.path.join(source.root, path)


def _components(source: PackSource, tree: Tree) -> Iterator[Component]:
    from cyclonedx.model.component import Component, ComponentType
    from packageurl import PackageURL

    for path in _metadata(source, tree):
        metadata = Distribution.at(path).metadata
        name, version = metadata.get("Name", ""), metadata.get("Version", "")
        if name and version:
            # The name as PEP 503 has it.
            purl = PackageURL("pypi", name=re.sub(r"[-_.]+", "-", name).lower(), version=version)
            yield Component(
                name=name,
                version=version,
                type=ComponentType.LIBRARY,
                bom_ref=purl.to_string(),
                purl=purl,
                description=metadata.get("Summary"),
                licenses=_licences(metadata),
            )


def _licences(metadata: Message) -> list[LicenseExpression | DisjunctiveLicense]:
    """Return the licences of a package: an SPDX expression, or what it names, or its classifiers."""
    from cyclonedx.factory.license import LicenseFactory

    make = LicenseFactory()
    expression, name = metadata.get("License-Expression", ""), metadata.get("License", "").strip()
    if expression:
        return [make.make_from_string(expression)]
    if name and name != "UNKNOWN" and len(name) <= _LONGEST_NAME and "\n" not in name:
        return [make.make_from_string(name)]
    classifiers = [text for text in metadata.get_all("Classifier", []) if text.startswith(_LICENCE)]
    return [make.make_with_name(text.rpartition(" :: ")[2]) for text in classifiers]


def check_empty(directory: str) -> None:
    """Raise `PackError` if there is a file, or a directory that is not empty."""
    if os.path.lexists(directory) and (not os.path.isdir(directory) or os.listdir(directory)):
        raise PackError("exists and is not empty", where=directory, hint="Name another directory, or remove it")


def copy_metadata(to: str, source: PackSource, tree: Tree) -> None:
    """Copy the metadata of every package of a tree to the directory `to`; raises `OSError`."""
    os.makedirs(to, exist_ok=True)
    for path in _metadata(source, tree):
        if os.path.isdir(path):
            shutil.copytree(path, os.path.join(to, os.path.basename(path)))
        else:
            shutil.copy2(path, to)
