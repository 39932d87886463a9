"""`unpackenv push`: archives become artifacts of a registry."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from unpackenv.errors import PushError, SettingError
from unpackenv.publish import documents, parcel
from unpackenv.publish.documents import digest_of, use_of
from unpackenv.publish.repository import Repository
from unpackenv.start.remote.reference import SCHEME, Reference
from unpackenv.start.remote.registry import DIGEST, INDEX, MANIFEST, parsed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from unpackenv.publish.parcel import Parcel, Watch

_WHERE = "REFERENCE"


@dataclass(frozen=True)
class Pushed:
    """What was pushed: `reference` has the tag and the digest, for UNPACKENV_ARCHIVE.

    `entries` are those of the index, if there is one, and `replaced` those that it had before in their place.
    """

    reference: str
    parcels: list[Parcel]
    entries: list[dict[str, Any]]
    replaced: list[dict[str, Any]]


def push(
    archives: Sequence[str], target: str, watch: Watch, *, add: bool = False, timeout: float, insecure: bool = False
) -> Pushed:
    """Push archives to a reference: one with a manifest, several with an index of their manifests.

    With `add`, what is at the tag already stays, but for archives of the same platform and Python. Raises
    `UnpackenvError`; nothing is pushed unless all archives are sound.
    """
    reference = _reference(target, insecure)
    with ExitStack() as stack:
        parcels = []
        for path in archives:
            parcels.append(parcel.checked(path, watch))
            stack.callback(parcels[-1].close)
        manifests = [documents.manifest(each) for each in parcels]
        entries = [documents.entry(each) for each in manifests]
        repository = Repository(reference, timeout, insecure)
        stack.callback(repository.close)
        is_index = add or len(parcels) > 1
        before = _before(repository, reference) if add else []
        if is_index:
            _check_different(parcels, entries)
        with watch("push", sum(each.size for each in parcels)) as show:
            _send(repository, parcels, show)
        names = [each["digest"] for each in entries] if is_index else [reference.tag]
        for name, document in zip(names, manifests):
            repository.put_manifest(name, MANIFEST, document)
        new = [use_of(each) for each in entries]
        replaced = [each for each in before if use_of(each) in new and each not in entries]
        entries += [each for each in before if use_of(each) not in new]
        entries.sort(key=use_of)  # whichever build came first, the index is the same
        top = documents.index(entries) if is_index else manifests[0]
        if is_index:
            repository.put_manifest(reference.tag, INDEX, top)
        return Pushed(f"{reference.shown}@{digest_of(top)}", parcels, entries if is_index else [], replaced)


def _reference(text: str, insecure: bool) -> Reference:
    """Return where to push to; raises `SettingError` for what is no tag of a registry."""
    if not text.startswith(SCHEME):
        meant = "" if "@" in text or "://" in text else f", such as {SCHEME}{text}"  # it may have a password
        hint = f"It is {SCHEME}REGISTRY/REPOSITORY:TAG{meant}"
        raise SettingError("is no reference to a registry", where=_WHERE, hint=hint)
    reference = Reference(text, insecure, _WHERE)
    if reference.digest:
        raise SettingError("has a digest, which follows from what is pushed", where=_WHERE, hint="Name a tag instead")
    return reference


def _check_different(parcels: list[Parcel], entries: list[dict[str, Any]]) -> None:
    """Raise `PushError` for two archives of which no start could tell which one it is to take."""
    seen: dict[tuple[str, str], Parcel] = {}
    for each, entry in zip(parcels, entries):
        other = seen.setdefault(use_of(entry), each)
        if other is not each:
            raise PushError(
                f"is for {each.purpose}, and so is {other.path}",
                where=each.path,
                hint="Push one of them to another tag",
            )


def _before(repository: Repository, reference: Reference) -> list[dict[str, Any]]:
    """Return the entries of what is at the tag; raises `PushError` if that is something else than archives."""
    data = repository.tagged()
    if not data:
        return []
    document = parsed(data, reference.shown)
    found: list[dict[str, Any]] = document.get("manifests") or [document]
    if not all(DIGEST in (each.get("annotations") or {}) for each in found):
        raise PushError(
            "has something at this tag that `unpackenv push` did not push",
            where=reference.shown,
            hint="Name another tag, or leave out --add to replace it",
        )
    return found if "manifests" in document else [documents.entry(data)]


def _send(repository: Repository, parcels: list[Parcel], show: Callable[[int], None]) -> None:
    """Send what the registry does not have yet."""
    config = documents.CONFIG
    if not repository.has_blob(digest_of(config)):
        repository.put_blob(digest_of(config), len(config), lambda size, offset: config[offset : offset + size])
    sent = 0
    for each in parcels:
        each.was_there = repository.has_blob(each.blob)
        if not each.was_there:
            repository.put_blob(each.blob, each.size, each.read, partial(_show_more, show, sent))
        sent += each.size
        show(sent)


def _show_more(show: Callable[[int], None], before: int, done: int) -> None:
    show(before + done)
