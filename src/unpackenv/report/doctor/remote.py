"""A remote archive: whether a start here can fetch it, with which credentials, and how."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING

from unpackenv.archive.traffic import Traffic
from unpackenv.errors import ArchiveUnreachable, ExtraMissing, NoSpace, UnpackenvError
from unpackenv.report import amount
from unpackenv.report.doctor.findings import NOTE, OK, PROBLEM, WARNING, Finding, of_error
from unpackenv.start.remote import address, credentials, unpatched_network
from unpackenv.start.remote.address import STORES, Address

if TYPE_CHECKING:
    from unpackenv.start.remote.httpfile import HttpFile
    from unpackenv.start.remote.registry import OciFile
    from unpackenv.start.settings import Settings

_LOOKED_FOR = "the environment, files of this user, and the metadata service of the machine"


def examine(settings: Settings) -> Iterator[Finding]:
    """Yield the findings on the server of a remote archive, in the order of a start, up to the first problem.

    The cache is left alone: what matters is what the server hands out.
    """
    try:
        shown = address.check(settings.archive, settings.insecure)
        scheme = shown.partition("://")[0]
        if scheme in STORES:
            yield from _library(scheme, shown)
            return
        server = _server(settings)
        yield _encryption(server, shown)
        from unpackenv.report.doctor import network

        way = list(network.examine(server))
        yield from way
        if any(finding.level == PROBLEM for finding in way):
            return
        used = _credentials(settings, server)
        yield used
        yield from _access(settings, shown, has_credentials=used.level == OK)
    except UnpackenvError as error:
        yield of_error("server", error)


def _server(settings: Settings) -> Address:
    if not settings.archive.startswith("oci://"):
        return Address(settings.archive)
    from unpackenv.start.remote.reference import Reference

    return Reference(settings.archive, settings.insecure).server


def _encryption(server: Address, shown: str) -> Finding:
    if server.scheme == "https" or server.is_loopback:
        return Finding("address", OK, shown, facts={"host": server.host, "port": server.port})
    text = f"{shown}: is not encrypted; anybody on the way can see what is fetched, and the credentials for it"
    return Finding("address", WARNING, text, "Use https://, and leave UNPACKENV_INSECURE out")


def _library(scheme: str, shown: str) -> Iterator[Finding]:
    """Yield whether the library for an object store is here; where it connects to is for the library to say."""
    needed = STORES[scheme]
    if not (find_spec("fsspec") and find_spec(needed)):
        text, hint = f"{shown}: needs {needed}, which is not installed here", f"pip install 'unpackenv[{scheme}]'"
        yield Finding("library", PROBLEM, text, hint, ExtraMissing.reason, {"library": needed})
        return
    yield Finding("library", OK, f"{shown}: {needed} fetches it", facts={"library": needed})
    yield Finding("credentials", NOTE, f"{needed} finds them by itself: in {_LOOKED_FOR}")


def _credentials(settings: Settings, server: Address) -> Finding:
    """Return where credentials come from, and of which kind they are; never the credentials."""
    if settings.archive.startswith("oci://"):
        return _of_registry(settings)
    kinds = [kind for kind, holds in (("user and password", server.user), ("a query", "?" in server.target)) if holds]
    if not kinds:
        return Finding("credentials", OK, "none: the URL has neither user nor query", facts={"source": ""})
    text = f"{' and '.join(kinds)} of the URL"
    text += ", which may be a signature that is valid for a time only" if "?" in server.target else ""
    return Finding("credentials", OK, text, facts={"source": "URL"})


def _of_registry(settings: Settings) -> Finding:
    from unpackenv.start.remote.reference import Reference

    registry = Reference(settings.archive, settings.insecure).registry
    found = credentials.for_registry(registry)
    facts = {"source": found.source}
    if not (found.user or found.token):
        text = f"none for {registry} in {found.source}: only what is public can be fetched"
        return Finding(
            "credentials", NOTE, text, "`docker login` writes some; DOCKER_CONFIG names another place", "", facts
        )
    kind = "user and password" if found.user else "an identity token"
    return Finding("credentials", OK, f"{kind} for {registry}, from {found.source}", facts=facts)


def _access(settings: Settings, shown: str, *, has_credentials: bool) -> Iterator[Finding]:
    """Ask for the archive as a start does; yield whether it is handed out, and whether it can be read in parts."""
    traffic = Traffic()
    file: HttpFile | OciFile
    taken = ""
    try:
        if settings.archive.startswith("oci://"):
            file = in_registry = unpatched_network.load("unpackenv.start.remote.registry").OciFile(settings, traffic)
            in_registry.resolve()
            gives = ", which takes the credentials" if has_credentials else ", which gives everybody a token"
            taken = gives if in_registry.is_authorized else ", which wants no credentials"
        else:
            file = unpatched_network.load("unpackenv.start.remote.httpfile").at(settings, traffic)
        size, knows_ranges = file.ask()
        file.close()
    finally:
        traffic.close()
    how_large = "of a size that the server does not say" if size is None else amount(size)
    yield Finding("server", OK, f"{shown}: is handed out by the server{taken}; {how_large}", facts={"size": size})
    if knows_ranges:
        yield Finding("ranges", OK, "the server knows them: each part is fetched when it is needed")
    else:
        yield _whole(size)


def _whole(size: int | None) -> Finding:
    """Return what it means that a server hands out files as a whole only."""
    directory = tempfile.gettempdir()
    status = os.statvfs(directory)
    free = status.f_bavail * status.f_frsize
    text = (
        "the server knows none: a start fetches the archive in order and by one connection, into a temporary file in "
    )
    text += f"{directory}, which has room for {amount(free)}"
    facts = {"directory": directory, "free": free, "need": size}
    if size is None or size > free:
        reason = ArchiveUnreachable.reason if size is None else NoSpace.reason
        return Finding("ranges", PROBLEM, text, "Use a server that knows ranges, or another TMPDIR", reason, facts)
    return Finding("ranges", WARNING, text, "Use a server that knows ranges (Accept-Ranges)", facts=facts)
