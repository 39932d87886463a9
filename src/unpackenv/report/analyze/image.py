"""Find packages in the layers of an image: a tar that `docker save` wrote, or one of an OCI image layout.

    layers, from the last to the first -> what a container would see -> site directories -> one of them, on the disk

Of several layers with the same path the last one counts; a whiteout (`.wh.NAME`, `.wh..wh..opq`) hides paths of
earlier layers. Nothing outside the chosen site directory is ever written.
"""

from __future__ import annotations

import json
import lzma
import os
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, Any, cast

from unpackenv.archive.codecs import zstd_extension, zstd_format
from unpackenv.errors import ArchiveCorrupt, PackError

_WHITEOUT, _OPAQUE = ".wh.", ".wh..wh..opq"
_GZIP = b"\x1f\x8b"
_INDEX_TYPES = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
_LOOK_EVERY = 500  # members


@dataclass(frozen=True)
class _Item:
    """A path in one layer. `content` is the path that has its bytes: its own, or the one that a hard link names."""

    layer: int
    kind: str
    size: int
    content: str
    link: str


@dataclass
class Image:
    """An image in a tar: its layers, their unpacked size, and the size of each site directory, largest first."""

    path: str
    layers: list[str]
    architecture: str
    python: str
    size: int = 0
    sites: dict[str, int] = field(default_factory=dict)
    _items: dict[str, _Item] = field(default_factory=dict, repr=False)

    def read(self, on_progress: Callable[[int], None]) -> None:
        """Find out what is in the layers; `on_progress` gets how many of a layer's bytes are read."""
        with _opened(self.path) as outer:
            self._look_through(outer, on_progress)
        # A layer need not have an entry for each directory.
        paths = {above for path in self._items for above in (path, path.rpartition("/")[0])}
        parents = {path.rpartition("/")[0] for path in paths if path.endswith((".dist-info", ".egg-info"))}
        outermost = (site for site in parents if not any(above in parents for above in _above(site)))
        sizes = {site: self._size_of(site) for site in outermost}
        self.sites = dict(sorted(sizes.items(), key=lambda pair: (-pair[1], pair[0])))
        if not self.sites:
            raise PackError("has no installed packages in its layers (no .dist-info)", where=self.path)

    def _look_through(self, outer: tarfile.TarFile, on_progress: Callable[[int], None]) -> None:
        hidden: set[str] = set()  # by later layers: a path, or, with a "/" at its end, all paths below it
        for number in reversed(range(len(self.layers))):
            hides = set()
            files: dict[str, tuple[str, int]] = {}  # of this layer: the path of their bytes, and how many
            for member in _members(outer, self.layers[number], on_progress):
                path = _plain(member.name)
                above, _, name = path.rpartition("/")
                if name == _OPAQUE:
                    hides.add(f"{above}/")
                elif name.startswith(_WHITEOUT):
                    hides.add(f"{above}/{name[len(_WHITEOUT) :]}".lstrip("/"))
                elif path:
                    item = _item(number, path, member, files)
                    self.size += item.size if item.content == path else 0
                    if path not in self._items and not self._is_hidden(path, hidden, number):
                        self._items[path] = item
            hidden |= hides

    def _is_hidden(self, path: str, hidden: set[str], layer: int) -> bool:
        if path in hidden:
            return True
        for above in _above(path):
            item = self._items.get(above)
            if above in hidden or f"{above}/" in hidden or (item and item.kind != "dir" and item.layer > layer):
                return True
        return False

    def _below(self, site: str) -> Iterator[tuple[str, _Item]]:
        prefix = f"{site}/" if site else ""
        for path, item in self._items.items():
            if path.startswith(prefix):
                yield path[len(prefix) :], item

    def _size_of(self, site: str) -> int:
        contents = {(item.layer, item.content): item.size for _, item in self._below(site)}
        return sum(contents.values())

    def extract(self, site: str, to: str, on_progress: Callable[[int], None]) -> None:
        """Write what is in a site directory of the image to the empty directory `to`, links last."""
        wanted: dict[tuple[int, str], list[str]] = {}
        links = []
        for path, item in self._below(site):
            if item.kind == "dir":
                os.makedirs(os.path.join(to, path), exist_ok=True)
            elif item.kind == "symlink":
                links.append((path, item.link))
            elif item.kind == "file":
                wanted.setdefault((item.layer, item.content), []).append(path)
        with _opened(self.path) as outer:
            for number in sorted({layer for layer, _ in wanted}):
                for member, file in _contents(outer, self.layers[number], on_progress):
                    paths = wanted.pop((number, _plain(member.name)), [])
                    if paths:
                        _write(file(), member, [os.path.join(to, path) for path in paths])
        for path, link in links:
            at = os.path.join(to, path)
            os.makedirs(os.path.dirname(at), exist_ok=True)
            if not os.path.lexists(at):  # a later layer may have files below it, and no entry for it
                os.symlink(link, at)


def find(path: str) -> Image | None:
    """Return the image in the tar at `path`, not read yet; None if the file holds none.

    Raises `PackError` for several images in one, or `ArchiveCorrupt`.
    """
    if not tarfile.is_tarfile(path):
        return None
    with _opened(path) as outer:
        names = outer.getnames()
        if "manifest.json" in names:  # docker save, of every version
            manifests = [
                (manifest["Layers"], _json(outer, manifest["Config"])) for manifest in _json(outer, "manifest.json")
            ]
        elif "index.json" in names and "oci-layout" in names:
            manifests = list(_oci(outer, _json(outer, "index.json")))
        else:
            return None
    if len(manifests) != 1:
        raise PackError(f"holds {len(manifests)} images", where=path, hint="Save one of them, for one platform")
    layers, config = manifests[0]
    variables = dict(one.partition("=")[::2] for one in (config.get("config") or {}).get("Env") or ())
    return Image(path, layers, config.get("architecture", ""), variables.get("PYTHON_VERSION", ""))


def _oci(outer: tarfile.TarFile, index: dict[str, Any]) -> Iterator[tuple[list[str], dict[str, Any]]]:
    """Yield layers and configuration of each image in an index, except BuildKit's attestations."""
    for entry in index["manifests"]:
        if (entry.get("platform") or {}).get("architecture") == "unknown":
            continue
        manifest = _json(outer, _blob(entry))
        if entry.get("mediaType") in _INDEX_TYPES or "manifests" in manifest:
            yield from _oci(outer, manifest)
        else:
            yield [_blob(layer) for layer in manifest["layers"]], _json(outer, _blob(manifest["config"]))


def _blob(descriptor: dict[str, Any]) -> str:
    return "blobs/" + str(descriptor["digest"]).replace(":", "/")


def _json(outer: tarfile.TarFile, name: str) -> Any:
    return json.load(_member(outer, name))


def _member(outer: tarfile.TarFile, name: str) -> IO[bytes]:
    """Return a file in the tar; links are followed (docker save makes them for equal layers)."""
    try:
        file = outer.extractfile(name)
    except KeyError:
        file = None
    if file is None:
        raise ArchiveCorrupt(f"lacks {name}, which its manifest lists")
    return file


@contextmanager
def _opened(path: str) -> Iterator[tarfile.TarFile]:
    """Open the outer tar, compressed or not; translate errors in it into `ArchiveCorrupt` with its path."""
    try:
        with tarfile.open(path) as outer:
            yield outer
    except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, ValueError, LookupError) as error:
        raise ArchiveCorrupt(f"is not an image of docker save or an OCI layout ({error})", where=path) from error
    except ArchiveCorrupt as error:
        error.where = path
        raise


def _contents(
    outer: tarfile.TarFile, name: str, on_progress: Callable[[int], None]
) -> Iterator[tuple[tarfile.TarInfo, Callable[[], IO[bytes]]]]:
    """Yield each member of a layer, with a function that opens its data; call that before the next member."""
    blob = _member(outer, name)
    with _layer(blob) as layer:
        for count, member in enumerate(layer):
            yield member, lambda member=member: cast("IO[bytes]", layer.extractfile(member))  # type: ignore[misc]
            if count % _LOOK_EVERY == 0:
                on_progress(blob.tell())
                layer.members = []  # type: ignore[attr-defined]  # else tarfile keeps every member in memory


def _layer(blob: IO[bytes]) -> tarfile.TarFile:
    head = blob.read(len(zstd_format.MAGIC))
    blob.seek(0)
    if head != zstd_format.MAGIC:
        return tarfile.open(fileobj=blob, mode="r|gz" if head.startswith(_GZIP) else "r:")
    reader = zstd_extension.load().ZstdDecompressor().stream_reader(blob, read_across_frames=True)
    return tarfile.open(fileobj=cast("IO[bytes]", reader), mode="r|")


def _members(outer: tarfile.TarFile, name: str, on_progress: Callable[[int], None]) -> Iterator[tarfile.TarInfo]:
    for member, _ in _contents(outer, name, on_progress):
        yield member


def _item(layer: int, path: str, member: tarfile.TarInfo, files: dict[str, tuple[str, int]]) -> _Item:
    if member.isdir():
        return _Item(layer, "dir", 0, path, "")
    if member.issym():
        return _Item(layer, "symlink", 0, path, member.linkname)
    content, size = files.get(_plain(member.linkname), (path, 0)) if member.islnk() else (path, member.size)
    files[path] = content, size
    return _Item(layer, "file" if member.isfile() or member.islnk() else "special", size, content, "")


def _write(data: IO[bytes], member: tarfile.TarInfo, paths: list[str]) -> None:
    """Write a file, with hard links for its other names."""
    first, *others = paths
    for path in paths:
        os.makedirs(os.path.dirname(path), exist_ok=True)
    with data, open(first, "xb") as file:
        while piece := data.read(1 << 20):
            file.write(piece)
    os.chmod(first, member.mode & 0o777 | 0o600)
    os.utime(first, (member.mtime, member.mtime))
    for other in others:
        os.link(first, other)


def _above(path: str) -> Iterator[str]:
    """Yield the directories above a path, the nearest first."""
    while path:
        path = path.rpartition("/")[0]
        yield path


def _plain(name: str) -> str:
    """Return a name in a layer relative to the root; "" for one that leads out of it."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    return "" if ".." in parts else "/".join(parts)
