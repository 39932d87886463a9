"""The tree to analyse, on the disk: as it is, or unpacked from an archive or an image."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from unpackenv.archive import trailer
from unpackenv.errors import ArchiveNotFound, PackError
from unpackenv.pack import progress, source
from unpackenv.report.analyze import image as images
from unpackenv.report.analyze import measure, scratch

if TYPE_CHECKING:
    from unpackenv.pack.source import PackSource


@dataclass(frozen=True)
class Subject:
    """A tree to analyse, and where it is from."""

    kind: str
    """"directory", "archive" or "image"."""
    path: str
    """The path that was named."""
    source: PackSource
    archive: str = ""
    """The archive, if it was named and `pack` made it."""
    facts: dict[str, Any] = field(default_factory=dict)
    """Further facts: of an image its layers, their bytes, and the bytes of each site directory."""


def open_subject(path: str, site: str, work: str) -> Subject:
    """Return the tree at `path`; an archive or an image is unpacked below the directory `work`.

    `site` names a site directory of an image, by default the largest. Raises `UnpackenvError`.
    """
    path = os.path.abspath(path)
    if os.path.isdir(path):
        return Subject("directory", path, source.as_is(path))
    if not os.path.exists(path):
        raise ArchiveNotFound("there is no such directory, archive or image", where=path)
    to = os.path.join(work, "tree")
    identity = trailer.identify(path)
    if identity.footer:
        measure.unpack(path, to)
        facts = {"digest": identity.digest, "size": identity.size}
        return Subject("archive", path, source.as_is(to, identity.facts.get("import")), path, facts)
    image = images.find(path)
    if image:
        return _of_image(image, site, to)
    report = measure.unpack(path, to)
    # Its paths begin with the directory that was given to tar.
    sites = report.import_paths
    root = sites[0] if len(sites) == 1 else to
    facts = {"size": identity.size, "unpack_seconds": report.milliseconds / 1e3}
    return Subject("archive", path, source.as_is(root), facts=facts)


def _of_image(image: images.Image, site: str, to: str) -> Subject:
    with progress.bar("read the layers", os.path.getsize(image.path)) as show:
        image.read(show)
    chosen = site.strip("/") or next(iter(image.sites))
    if chosen not in image.sites:
        sites = ", ".join(f"/{path}" for path in image.sites)
        raise PackError(f"has no installed packages at /{chosen}", where=image.path, hint=f"It has them at {sites}")
    os.mkdir(to)
    scratch.check_room(to, image.sites[chosen])
    with progress.bar("extract", os.path.getsize(image.path)) as show:
        image.extract(chosen, to, show)
    facts = {
        "layers": len(image.layers),
        "size": image.size,
        "architecture": image.architecture,
        "python": image.python,
        "site": f"/{chosen}",
        "sites": {f"/{path}": size for path, size in image.sites.items()},
    }
    return Subject("image", image.path, source.as_is(to, [""]), facts=facts)
