"""`unpackenv push`: what is in a registry then, what a start makes of it, and what goes wrong on the way."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from helpers import terminal
from helpers.file_server import listening
from helpers.processes import run, wrapper
from helpers.registries import HTPASSWD, Key, Pretended, TokenService, basic, check_there, docker_config
from rig import registry
from rig.environment import environment
from rig.sites import TAG, pack_tree, write_tree
from unpackenv.archive import trailer
from unpackenv.errors import ArchiveUnreachable
from unpackenv.publish import repository
from unpackenv.publish.repository import Repository
from unpackenv.start.remote.reference import Reference

TRIED = 4  # seconds; enough for some attempts
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "s390x": "s390x", "riscv64": "riscv64", "ppc64le": "ppc64le"}
OWN = os.uname().machine
OTHER, FURTHER = (machine for machine in ("aarch64", "x86_64", "s390x") if machine != OWN)
MANIFEST, INDEX = (f"application/vnd.oci.image.{kind}.v1+json" for kind in ("manifest", "index"))
ARTIFACT = "application/vnd.unpackenv.archive.v1"


def platform(machine: str) -> str:
    return f"linux/{ARCHITECTURES[machine]}"


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Archives, each with a module that says which one it is. Shared: never write to it."""
    folder = tmp_path_factory.mktemp("packed")

    def pack(name: str, codec: str = "zstd", size: int = 300_000, **facts: str) -> None:
        suffix = {"zstd": "zst", "xz": "xz"}[codec]
        tree = write_tree(folder / name, {"which.py": f"print({name!r})\n"})
        (tree / "data").write_bytes(os.urandom(size))
        pack_tree(folder / f"{name}.tar.{suffix}", tree, codec, **{"system": "linux", **facts})

    pack("own", native="yes", machine=OWN)
    pack("own2", native="yes", machine=OWN)
    pack("own_xz", "xz", native="yes", machine=OWN)
    pack("large", size=8_000_000)  # more than the system keeps of what is sent
    pack("other", native="yes", machine=OTHER)
    pack("further", native="yes", machine=FURTHER)
    pack("other_python", native="yes", machine=OWN, python="cpython-27")
    pack("pure", native="no", machine=OTHER)
    return folder


@pytest.fixture(scope="module")
def store() -> Iterator[str]:
    """The address of a registry. Shared: each test has a repository of its own."""
    check_there()
    with registry.running() as address:
        yield address


@pytest.fixture
def target(store: str, request: pytest.FixtureRequest) -> str:
    """Where to push to."""
    return f"oci://{store}/team/{sha256(request.node.name.encode()).hexdigest()[:20]}:1.0"


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    own = {
        "DOCKER_CONFIG": tmp_path / "docker",
        "UNPACKENV_FETCH_TIMEOUT": TRIED,
        "UNPACKENV_TARGET": tmp_path / "tree",
    }
    return environment(**own, NO_PROXY="*")


@pytest.fixture
def pretended() -> Iterator[Pretended]:
    with listening(Pretended()) as server:
        yield server


def push(env: dict[str, str], *arguments: object) -> str:
    """Push, and return the reference that is printed."""
    done = run(wrapper("push", *arguments), env)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    name, _, reference = done.stdout.splitlines()[-1].partition("=")
    assert name == "UNPACKENV_ARCHIVE"
    return reference


def refused(env: dict[str, str], *arguments: object) -> str:
    """Push what is refused, and return what is said about that, in one line."""
    done = run(wrapper("push", *arguments), env)
    assert (done.returncode, done.stdout) == (125, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("unpackenv: error: ")
    return line.partition(": error: ")[2]


def started(env: dict[str, str], reference: str, **variables: object) -> str:
    """Start by a reference; return which archive that was."""
    more = {name: str(value) for name, value in variables.items()}
    command = wrapper("--", sys.executable, "-c", "import which")
    done = run(command, {**env, "UNPACKENV_ARCHIVE": reference, **more})
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def raw(reference: str, name: str = "") -> bytes:
    """Return the manifest or index that a reference names, or another one of its repository, byte by byte."""
    server, _, path = reference[len("oci://") :].partition("@")[0].partition("/")
    path, _, tag = path.partition(":")
    url = f"http://{server}/v2/{path}/manifests/{name or tag}"
    with urllib.request.urlopen(urllib.request.Request(url, headers={"Accept": f"{MANIFEST}, {INDEX}"})) as response:
        data: bytes = response.read()
        assert response.headers["Content-Type"] == json.loads(data).get("mediaType", MANIFEST)
        return data


def fetched(reference: str, name: str = "") -> dict[str, Any]:
    """Return that as a document; what a reference with a digest names has that digest."""
    data = raw(reference, name)
    assert name or reference.endswith(f"@sha256:{sha256(data).hexdigest()}")
    document: dict[str, Any] = json.loads(data)
    return document


def is_nothing_at(reference: str) -> bool:
    try:
        raw(reference)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code == 404
    return False


def reset(handler: Any) -> bool:
    """Break a connection off in the middle of what is sent."""
    handler.rfile.read(min(1000, int(handler.headers.get("Content-Length", 0))))
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    handler.connection.close()
    handler.close_connection = True
    return True


def answer(status: int, content: bytes = b"", **headers: str) -> Any:
    """Return a fault: an answer before all that is sent was read."""

    def fault(handler: Any) -> bool:
        handler.close_connection = True
        return bool(handler.answer(status, content, **headers))

    return fault


# --- one archive ---------------------------------------------------------------------------------


KINDS = ["own.tar.zst", "own_xz.tar.xz", "pure.tar.zst"]


@pytest.mark.parametrize("name", KINDS)
def test_what_is_in_the_registry(packed: Path, target: str, env: dict[str, str], name: str) -> None:
    reference = push(env, packed / name, target)
    assert reference.startswith(f"{target}@sha256:")
    data, digest = (packed / name).read_bytes(), trailer.identify(str(packed / name)).digest
    known = {"io.unpackenv.digest": digest, "io.unpackenv.python": TAG}
    if "own" in name:
        known["io.unpackenv.platform"] = platform(OWN)
    assert fetched(reference) == {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": ARTIFACT,
        "config": {
            "mediaType": "application/vnd.oci.empty.v1+json",
            "digest": "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
            "size": 2,
        },
        "layers": [
            {
                "mediaType": f"{ARTIFACT}.tar+{'xz' if name.endswith('.xz') else 'zstd'}",
                "digest": f"sha256:{sha256(data).hexdigest()}",
                "size": len(data),
                "annotations": {"org.opencontainers.image.title": name},
            }
        ],
        "annotations": known,
    }


@pytest.mark.parametrize("name", KINDS)
def test_a_start_takes_it(packed: Path, target: str, env: dict[str, str], name: str) -> None:
    assert started(env, push(env, packed / name, target)) == name.partition(".")[0]


def test_what_is_printed(packed: Path, target: str, env: dict[str, str]) -> None:
    archive = packed / "own.tar.zst"
    digest, size = trailer.identify(str(archive)).digest, f"{archive.stat().st_size / 1000:.1f} kB"
    for there in "", ", was there already":
        first, second, last = run(wrapper("push", archive, target), env).stdout.splitlines()
        assert first == f"{archive}: {size}, for {platform(OWN)} and {TAG}{there}"
        assert second == f"  digest {digest}"
        assert last.startswith(f"UNPACKENV_ARCHIVE={target}@sha256:")
    found = json.loads(run(wrapper("push", "--json", archive, target), env).stdout)
    assert found["reference"] == last.partition("=")[2]
    (described,) = found["archives"]
    assert described == {
        "path": str(archive), "size": archive.stat().st_size, "digest": digest, "platform": platform(OWN),
        "python": TAG, "blob": f"sha256:{sha256(archive.read_bytes()).hexdigest()}", "was_there": True,
    }  # fmt: skip


def test_a_terminal_shows_how_far_it_is(packed: Path, pretended: Pretended, env: dict[str, str]) -> None:
    shown = terminal.run("push", packed / "large.tar.zst", f"oci://{pretended.address}/app:1", **env)
    assert (shown.returncode, len(shown.stdout.splitlines())) == (0, 3)
    assert "verify" in shown.text
    assert "100%" in shown.text.rpartition("push")[2]


@pytest.mark.parametrize("is_native", [True, False])
def test_what_pack_has_made(store: str, env: dict[str, str], tmp_path: Path, is_native: bool) -> None:
    site = write_tree(tmp_path / "site", {"which.py": "print('packed')\n"})
    if is_native:
        shutil.copy("/bin/true", site / "library.so")
    archive, target = tmp_path / "site.tar.zst", f"oci://{store}/packed/{is_native}:1".lower()
    assert run(wrapper("pack", site, "-o", archive, "--level", "1"), env).returncode == 0
    (described,) = json.loads(run(wrapper("push", "--json", archive, target), env).stdout)["archives"]
    assert (described["platform"], described["python"]) == (platform(OWN) if is_native else "", TAG)
    assert started(env, push(env, archive, target)) == "packed"


def test_a_tag_that_is_not_named_is_the_latest(packed: Path, target: str, env: dict[str, str]) -> None:
    place = target.rpartition(":")[0]
    reference = push(env, packed / "pure.tar.zst", place)
    assert reference.startswith(f"{place}:latest@sha256:")
    assert started(env, reference) == "pure"


def test_time_is_said_only_where_it_is_set(packed: Path, target: str, env: dict[str, str]) -> None:
    once, again = (push(env, packed / "own.tar.zst", target) for _ in range(2))
    assert once == again
    dated = push({**env, "SOURCE_DATE_EPOCH": "1700000000"}, packed / "own.tar.zst", packed / "other.tar.zst", target)
    index = fetched(dated)
    for document in index, *(fetched(dated, each["digest"]) for each in index["manifests"]):
        assert document["annotations"]["org.opencontainers.image.created"] == "2023-11-14T22:13:20Z"
    for wrong in "now", "9" * 30:
        says = f"SOURCE_DATE_EPOCH: '{wrong}' is not a number of seconds since 1970"
        assert refused({**env, "SOURCE_DATE_EPOCH": wrong}, packed / "own.tar.zst", target) == says


# --- several archives ----------------------------------------------------------------------------


def test_a_start_takes_the_archive_for_its_machine(packed: Path, target: str, env: dict[str, str]) -> None:
    names = ["other.tar.zst", "own.tar.zst", "further.tar.zst"]
    reference = push(env, *(packed / name for name in names), target)
    index = fetched(reference)
    assert (index["mediaType"], index["artifactType"]) == (INDEX, ARTIFACT)
    found = {}
    for entry in index["manifests"]:
        manifest = fetched(reference, entry["digest"])
        found["/".join([entry["platform"]["os"], entry["platform"]["architecture"]])] = manifest
        assert entry["annotations"].items() <= manifest["annotations"].items()
        assert entry["annotations"]["io.unpackenv.python"] == TAG
    titles = {name: each["layers"][0]["annotations"]["org.opencontainers.image.title"] for name, each in found.items()}
    assert titles == dict(zip(map(platform, (OTHER, OWN, FURTHER)), names))
    assert started(env, reference) == "own"


def test_a_start_without_one_says_what_is_there(packed: Path, target: str, env: dict[str, str]) -> None:
    reference = push(env, packed / "other.tar.zst", packed / "further.tar.zst", target)
    done = run(wrapper("--archive", reference, "--", "true"), env)
    there = ", ".join(sorted(map(platform, (OTHER, FURTHER))))
    says = f"{reference}: there is no archive for {platform(OWN)}, only for {there}. Push one for this platform"
    assert done.returncode == 125
    assert says in done.stderr


@pytest.mark.parametrize(
    ("names", "taken"),
    [
        (["other_python", "own"], "own"),
        (["other", "pure"], "pure"),
        (["pure", "own"], "own"),
        (["other_python", "pure"], "pure"),
    ],
)
def test_of_several_that_fit_the_best_is_taken(
    packed: Path, target: str, env: dict[str, str], names: list[str], taken: str
) -> None:
    for ordered in names, names[::-1]:
        reference = push(env, *(packed / f"{name}.tar.zst" for name in ordered), target)
        assert started(env, reference) == taken


def test_two_for_the_same_are_refused(packed: Path, target: str, env: dict[str, str]) -> None:
    first, second = packed / "own.tar.zst", packed / "own_xz.tar.xz"
    says = f"{second}: is for {platform(OWN)} and {TAG}, and so is {first}. Push one of them to another tag"
    assert refused(env, first, second, target) == says
    assert is_nothing_at(target)


def test_platforms_are_added_one_after_the_other(packed: Path, target: str, env: dict[str, str]) -> None:
    """Whichever is first, and whether the first is pushed with `--add` or without, the index is the same."""
    together = push(env, *(packed / f"{name}.tar.zst" for name in ("own", "other", "further")), target)
    for first in [], ["--add"]:
        for names in ("further", "own", "other"), ("other", "further", "own"):
            place = f"{target}-{names[0]}{len(first)}"
            push(env, *first, packed / f"{names[0]}.tar.zst", place)
            for name in names[1:]:
                reference = push(env, packed / f"{name}.tar.zst", "--add", place)
            assert reference.partition("@")[2] == together.partition("@")[2]


def test_what_is_added_takes_the_place_of_its_like(packed: Path, target: str, env: dict[str, str]) -> None:
    before = push(env, *(packed / f"{name}.tar.zst" for name in ("own", "other", "other_python")), target)
    assert started(env, before) == "own"
    done = run(wrapper("push", packed / "own2.tar.zst", target, "--add"), env)
    lines = done.stdout.splitlines()
    reference = lines[-1].partition("=")[2]
    assert "index of 3 archives" in lines
    (gone,) = (line for line in lines if line.startswith("  no longer "))
    old = [each["digest"] for each in fetched(before, before.partition("@")[2])["manifests"]]
    new = [each["digest"] for each in fetched(reference)["manifests"]]
    (digest,) = set(old) - set(new)
    assert gone == f"  no longer {digest}, for {platform(OWN)} and {TAG}"
    assert started({**env, "UNPACKENV_TARGET": env["UNPACKENV_TARGET"] + "2"}, reference) == "own2"


def test_nothing_is_added_to_what_is_no_archive(
    packed: Path, target: str, env: dict[str, str], tmp_path: Path, oras: Any
) -> None:
    file = tmp_path / "readme.txt"
    file.write_text("no archive")
    oras.push(target=target[len("oci://") :], files=[str(file)], disable_path_validation=True)
    says = f"{target}: has something at this tag that `unpackenv push` did not push. Name another tag, or"
    assert refused(env, "--add", packed / "own.tar.zst", target).startswith(says)
    assert started(env, push(env, packed / "own.tar.zst", target)) == "own"


# --- what is refused -----------------------------------------------------------------------------


def test_nothing_damaged_is_published(packed: Path, pretended: Pretended, env: dict[str, str], tmp_path: Path) -> None:
    data = bytearray((packed / "own.tar.zst").read_bytes())
    data[1000] ^= 1
    (tmp_path / "damaged.tar.zst").write_bytes(data)
    target = f"oci://{pretended.address}/app:1"
    says = refused(env, packed / "pure.tar.zst", tmp_path / "damaged.tar.zst", target)
    assert re.match(re.escape(f"{tmp_path}/damaged.tar.zst: ") + r"frame \d+ \(byte \d+\) is damaged\.", says)
    assert pretended.requests == []


def test_an_archive_of_plain_tar_is_refused(
    packed: Path, pretended: Pretended, env: dict[str, str], tmp_path: Path
) -> None:
    path = tmp_path / "plain.tar.xz"
    subprocess.run(["tar", "-C", packed / "own", "-Jcf", path, "."], check=True)
    says = refused(env, path, f"oci://{pretended.address}/app:1")
    assert says.startswith(f"{path}: it was not made by `unpackenv pack`")
    assert pretended.requests == []


@pytest.mark.parametrize(
    ("reference", "says"),
    [
        (
            "registry.example/app:1",
            "REFERENCE: is no reference to a registry. It is oci://REGISTRY/REPOSITORY:TAG, such",
        ),
        ("oci://registry.example", "REFERENCE: is no reference to a registry ('' is no repository)"),
        ("oci://registry.example/App:1", "REFERENCE: is no reference to a registry ('App' is no repository)"),
        ("oci://registry.example/app:-1", "REFERENCE: '-1' is no tag"),
        ("oci://registry.example:123456/app:1", "REFERENCE: is no URL (Port out of range"),
        (f"oci://registry.example/app:1@sha256:{'0' * 64}", "REFERENCE: has a digest, which follows from what is"),
        ("oci://user:secret@registry.example/app:1", "REFERENCE: is no reference to a registry ('' is no repository)"),
    ],
)
def test_references_that_are_refused(packed: Path, env: dict[str, str], reference: str, says: str) -> None:
    assert refused(env, packed / "own.tar.zst", reference).startswith(says)


def test_an_archive_that_is_not_there(pretended: Pretended, env: dict[str, str], tmp_path: Path) -> None:
    says = f"{tmp_path}/a.tar.zst: there is no archive. Name what `unpackenv pack` wrote"
    assert refused(env, tmp_path / "a.tar.zst", f"oci://{pretended.address}/app:1") == says


def test_options_may_stand_between_archives(env: dict[str, str], tmp_path: Path) -> None:
    says = f"{tmp_path}/a: there is no archive. "
    assert refused(env, tmp_path / "a", "b", "--add", "c", "oci://registry.example/app:1").startswith(says)
    done = run(wrapper("push", "--add", "--", "--odd", "oci://registry.example/app:1"), env, cwd=tmp_path)
    assert done.stderr.startswith(f"unpackenv: error: {tmp_path}/--odd: there is no archive. ")


def test_another_machine_is_reached_without_encryption_only_if_that_is_allowed() -> None:
    for name in "registry.example", "127.0.0.1.example", "localhost.example":
        assert Reference(f"oci://{name}/app:1").server.scheme == "https"
        assert Reference(f"oci://{name}/app:1", insecure=True).server.scheme == "http"
    for name in "localhost:5000", "127.0.0.1:5000", "[::1]:5000":
        assert Reference(f"oci://{name}/app:1").server.scheme == "http"


@pytest.mark.parametrize("way", ["option", "variable"])
def test_insecure_is_meant_for_push_too(packed: Path, pretended: Pretended, env: dict[str, str], way: str) -> None:
    """A proxy stands for the other machine."""
    env.update(http_proxy=f"http://{pretended.address}", NO_PROXY="")
    archive, target = packed / "own.tar.zst", "oci://registry.invalid/app:1"
    assert "its host has no address" in refused({**env, "UNPACKENV_FETCH_TIMEOUT": "0.1"}, archive, target)
    env.update({"UNPACKENV_INSECURE": "yes"} if way == "variable" else {})
    push(env, *(["--insecure"] if way == "option" else []), archive, target)
    assert all(path.startswith("http://registry.invalid/") for _, path, _ in pretended.requests)


# --- how blobs are sent --------------------------------------------------------------------------


def test_what_is_there_is_not_sent_again(packed: Path, pretended: Pretended, env: dict[str, str]) -> None:
    target = f"oci://{pretended.address}/app:1"
    reference = push(env, packed / "own.tar.zst", target)
    assert len(pretended.asked("POST")) == 2  # the archive, and the empty configuration
    sizes = sorted(int(headers["Content-Length"]) for _, headers in pretended.asked("PUT"))
    assert sizes[0] == 2
    assert sizes[-1] == (packed / "own.tar.zst").stat().st_size
    del pretended.requests[:]
    assert push(env, packed / "own.tar.zst", target) == reference
    assert [method for method, _, _ in pretended.requests] == ["HEAD", "HEAD", "PUT"]
    pretended.fault = lambda handler, number: handler.command == "HEAD" and handler.answer(307, Location="/elsewhere")
    assert push(env, packed / "own.tar.zst", target) == reference
    assert len(pretended.asked("POST")) == 0


@pytest.mark.parametrize(
    ("upload", "asked"),
    [
        ("/upload/1", "/upload/1?digest="),
        ("2?state=a%2Fb&x=", "/v2/app/blobs/uploads/2?state=a%2Fb&x=&digest="),
        ("http://{}/upload/3?state=c", "/upload/3?state=c&digest="),
    ],
)
def test_uploads_go_where_the_registry_says(
    packed: Path, pretended: Pretended, env: dict[str, str], upload: str, asked: str
) -> None:
    pretended.upload = upload.replace("{}", pretended.address)
    push(env, packed / "own.tar.zst", f"oci://{pretended.address}/app:1")
    blobs = [path for path, _ in pretended.asked("PUT") if "/manifests/" not in path]
    assert [path[: len(asked)] for path in blobs] == [asked, asked]


def test_another_host_gets_no_credentials(packed: Path, env: dict[str, str]) -> None:
    with listening(Pretended()) as server, listening(Pretended("127.0.0.2")) as other:
        server.upload = f"http://{other.address}/upload?signature=1"
        wants = answer(401, WWW_Authenticate='Basic realm="registry"')
        server.fault = lambda handler, number: "Authorization" not in handler.headers and wants(handler)
        env["DOCKER_AUTH_CONFIG"] = docker_config(server.address)
        push(env, packed / "own.tar.zst", f"oci://{server.address}/app:1")
        assert {headers.get("Authorization") for _, _, headers in other.requests} == {None}
        assert {method for method, _, _ in other.requests} == {"PUT"}
        assert {headers.get("Authorization") for _, _, headers in server.requests[1:]} == {f"Basic {basic()}"}
        # Nor does it get any by asking for them.
        other.fault = lambda handler, number: wants(handler)
        del other.requests[:]
        says = refused(env, packed / "other.tar.zst", f"oci://{server.address}/app:1")
        assert "the server refuses it (401 Unauthorized)" in says
        assert {headers.get("Authorization") for _, _, headers in other.requests} == {None}


def test_an_upload_is_not_led_from_encryption_to_none(monkeypatch: pytest.MonkeyPatch) -> None:
    place = Repository(Reference("oci://registry.example/app:1"), TRIED, True)
    asked = []

    class Answer:
        status = 202

        def read(self) -> bytes:
            return b""

        def getheader(self, name: str, default: str = "") -> str:
            return "http://registry.example/upload"

    def send(self: object, method: str, *arguments: object, **options: object) -> Answer:
        asked.append(method)
        return Answer()

    monkeypatch.setattr(repository.RegistryRequests, "send", send)
    with pytest.raises(ArchiveUnreachable, match="leads from https:// to http://, which is refused"):
        place.put_blob("sha256:0", 1, lambda size, offset: b"")
    assert asked == ["POST"]


@pytest.mark.parametrize("method", ["HEAD", "POST", "PUT"])
@pytest.mark.parametrize("fault", [answer(500), answer(429, Retry_After="1"), reset], ids=["500", "429", "reset"])
def test_what_is_over_soon_is_tried_again(
    packed: Path, pretended: Pretended, env: dict[str, str], method: str, fault: Any
) -> None:
    """From the first byte on."""
    failed = []

    def once(handler: Any, number: int) -> bool:
        if handler.command != method or handler.path in failed or len(failed) > 3:
            return False
        failed.append(handler.path)
        return bool(fault(handler))

    pretended.fault = once
    push(env, packed / "own.tar.zst", f"oci://{pretended.address}/app:1")
    assert failed
    assert (packed / "own.tar.zst").read_bytes() in pretended.blobs.values()


def errors(**error: str) -> bytes:
    return json.dumps({"errors": [error]}).encode()


PERMANENT = {
    "too large": (
        "PUT",
        answer(413),
        "). The server, or a proxy before it, limits how much may be sent; raise that limit\n",
    ),
    "says why": (
        "PUT",
        answer(400, errors(message="no\n such type")),
        "the server answers 400 Bad Request: no such type\n",
    ),
    "a code only": ("PUT", answer(403, errors(code="DENIED")), "the server refuses it (403 Forbidden: DENIED). Check "),
    "colours": ("PUT", answer(400, errors(message="\33[31m")), "the server answers 400 Bad Request\n"),
    "another form": ("PUT", answer(400, b'{"errors": "none"}'), "the server answers 400 Bad Request\n"),
    "404": (
        "POST",
        answer(404),
        "there is no repository (404 Not Found). Check its name; some registries want it to be ",
    ),
    "500": ("HEAD", answer(500), f"cannot be pushed within {TRIED} s (the server answers 500"),
}


@pytest.mark.parametrize("what", PERMANENT)
def test_what_stays_wrong_is_said(packed: Path, pretended: Pretended, env: dict[str, str], what: str) -> None:
    method, fault, says = PERMANENT[what]
    pretended.fault = lambda handler, number: (
        handler.command == method and handler.headers["Content-Length"] != "2" and fault(handler)
    )
    target = f"oci://{pretended.address}/app:1"
    line = refused(env, packed / "large.tar.zst", target) + "\n"
    assert line.startswith(f"{target}: ")
    assert says in line


def test_a_registry_that_stores_something_else(packed: Path, pretended: Pretended, env: dict[str, str]) -> None:
    other = f"sha256:{'1' * 64}"
    pretended.fault = lambda handler, number: (
        "/manifests/" in handler.path and answer(201, Docker_Content_Digest=other)(handler)
    )
    says = refused(env, packed / "own.tar.zst", f"oci://{pretended.address}/app:1")
    assert f"the registry has stored another manifest than it was sent: {other}" in says


# --- credentials ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a registry that wants a password."""
    check_there()
    file = tmp_path_factory.mktemp("closed") / "htpasswd"
    file.write_text(HTPASSWD)
    with registry.running(auth={"htpasswd": {"realm": "registry", "path": str(file)}}) as address:
        yield address


def test_a_password(packed: Path, closed: str, env: dict[str, str]) -> None:
    target = f"oci://{closed}/team/app:1"
    says = refused(env, packed / "own.tar.zst", target)
    assert says.startswith(f"{target}: the server refuses it (401 Unauthorized")
    file = f"{env['DOCKER_CONFIG']}/config.json"
    assert says.partition("). ")[2].startswith(f"There are no credentials for {closed} in {file}. `docker login` ")
    wrong = {**env, "DOCKER_AUTH_CONFIG": docker_config(closed, password="SECRET")}
    says = refused(wrong, packed / "own.tar.zst", target)
    assert says.endswith(f"). Check the credentials for {closed} in DOCKER_AUTH_CONFIG, and what they allow")
    assert "SECRET" not in says
    right = {**env, "DOCKER_AUTH_CONFIG": docker_config(closed)}
    assert started(right, push(right, packed / "own.tar.zst", target)) == "own"


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Key:
    return Key(tmp_path_factory.mktemp("tokens") / "key")


def test_tokens(packed: Path, key: Key, env: dict[str, str]) -> None:
    check_there()
    with listening(TokenService(key)) as tokens, registry.running(auth=tokens.auth) as address:
        target = f"oci://{address}/team/app:1"
        right = {**env, "DOCKER_AUTH_CONFIG": docker_config(address)}
        reference = push(right, packed / "own.tar.zst", target)
        scope = {"service": "registry", "scope": "repository:team/app:pull,push"}
        assert tokens.requests == [("GET", f"Basic {basic()}", scope)]
        assert started(right, reference) == "own"
        del tokens.requests[:]
        tokens.allowed.remove("push")
        says = refused(right, packed / "other.tar.zst", target)
        assert "the server refuses it (401 Unauthorized" in says
        assert says.endswith(f"Check the credentials for {address} in DOCKER_AUTH_CONFIG, and what they allow")
        assert len(tokens.requests) <= 3
        wrong = {**env, "DOCKER_AUTH_CONFIG": docker_config(address, password="SECRET")}
        says = refused(wrong, packed / "other.tar.zst", target)
        assert f"the server refuses it (401 Unauthorized). Check the credentials for {address} in DOCKER_AUTH" in says
        assert "SECRET" not in says


# --- other programs ------------------------------------------------------------------------------


@pytest.fixture
def oras(store: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A client of ORAS."""
    client = pytest.importorskip("oras.client")
    monkeypatch.setenv("NO_PROXY", "*")
    return client.OrasClient(hostname=store, insecure=True)


def test_oras_pulls_what_was_pushed(packed: Path, target: str, env: dict[str, str], tmp_path: Path, oras: Any) -> None:
    push(env, packed / "own.tar.zst", target)
    (path,) = oras.pull(target=target[len("oci://") :], outdir=str(tmp_path / "pulled"))
    assert path == str(tmp_path / "pulled/own.tar.zst")
    assert Path(path).read_bytes() == (packed / "own.tar.zst").read_bytes()


def test_a_start_takes_what_oras_pushed(packed: Path, target: str, env: dict[str, str], oras: Any) -> None:
    archive = packed / "own.tar.zst"
    oras.push(target=target[len("oci://") :], files=[str(archive)], disable_path_validation=True)
    digest = trailer.identify(str(archive)).digest
    assert started(env, f"{target}#sha256={digest}") == "own"
    manifest = raw(target)
    assert b"unpackenv" not in manifest
    pinned = f"{target}@sha256:{sha256(manifest).hexdigest()}"
    done = run(wrapper("--archive", pinned, "--target", env["UNPACKENV_TARGET"] + "2", "--", "true"), env)
    assert done.returncode == 125
    assert (
        f"{pinned}: its manifest does not say the digest of the archive. Add #sha256=DIGEST, which `unpackenv inspect` "
        "prints, or push it with `unpackenv push`"
    ) in done.stderr
    assert started({**env, "UNPACKENV_TARGET": env["UNPACKENV_TARGET"] + "2"}, f"{pinned}#sha256={digest}") == "own"
