"""What is to be analysed, brought to the disk: a tree as it is, or what comes out of an archive or an image."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from unpackenv.archive import trailer
from unpackenv.errors import ArchiveNotFound, PackError
from unpackenv.pack import progress, source
from unpackenv.report.analyze import image, measure, scratch

if TYPE_CHECKING:
    from unpackenv.pack.source import Source


@dataclass(frozen=True)
class Subject:
    """A tree to be analysed, and where it is from."""

    kind: str
    """"directory", "archive" or "image"."""
    path: str
    """What was named."""
    source: Source
    archive: str = ""
    """The archive that `pack` made, if that is what was named."""
    facts: dict[str, Any] = field(default_factory=dict)
    """What else is known: of an image its layers, their bytes, and the bytes of each site directory."""


def open_subject(path: str, site: str, work: str) -> Subject:
    """Return what is at `path`, unpacked below the directory `work` where need be.

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
    found = image.find(path)
    if found:
        return _of_image(found, site, to)
    done = measure.unpack(path, to)
    # Its paths begin with the directory that was given to tar.
    sites = done.import_paths
    root = sites[0] if len(sites) == 1 else to
    facts = {"size": identity.size, "unpack_seconds": done.milliseconds / 1e3}
    return Subject("archive", path, source.as_is(root), facts=facts)


def _of_image(found: image.Image, site: str, to: str) -> Subject:
    with progress.bar("read the layers", os.path.getsize(found.path)) as show:
        found.read(show)
    chosen = site.strip("/") or next(iter(found.sites))
    if chosen not in found.sites:
        have = ", ".join(f"/{one}" for one in found.sites)
        raise PackError(f"has no installed packages at /{chosen}", where=found.path, hint=f"It has them at {have}")
    os.mkdir(to)
    scratch.check_room(to, found.sites[chosen])
    with progress.bar("extract", os.path.getsize(found.path)) as show:
        found.extract(chosen, to, show)
    facts = {
        "layers": len(found.layers),
        "size": found.size,
        "architecture": found.architecture,
        "python": found.python,
        "site": f"/{chosen}",
        "sites": {f"/{one}": size for one, size in found.sites.items()},
    }
    return Subject("image", found.path, source.as_is(to, [""]), facts=facts)
