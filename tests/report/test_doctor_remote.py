"""`unpackenv doctor` where the archive is elsewhere: the way to the server, what it hands out, and the cache."""

from __future__ import annotations

import base64
import json
import os
import sys
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from helpers.diagnoses import Diagnosis, check_secrets, doctor, start
from helpers.file_server import FileServer, make_certificate, serving, tunneling
from helpers.processes import run, wrapper
from rig.environment import environment
from rig.sites import pack_tree, write_tree
from unpackenv.archive import trailer

Mount = Callable[..., None]
Variables = dict[str, Any]
TOPICS = ("address", "proxy", "network", "TLS", "clock", "credentials", "server", "ranges", "cache", "digest")


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shared: never write to it."""
    folder = tmp_path_factory.mktemp("packed")
    pack_tree(folder / "archive", write_tree(folder / "site", {"app.py": "", "data": os.urandom(5_000).hex()}))
    return folder / "archive"


@pytest.fixture(scope="module")
def digest(archive: Path) -> str:
    return trailer.identify(str(archive)).digest


@pytest.fixture
def server(archive: Path) -> Iterator[FileServer]:
    with serving(archive.read_bytes()) as running:
        yield running


@pytest.fixture
def variables(server: FileServer, digest: str, tmp_path: Path) -> Variables:
    """The environment of a start by URL, which has a password and a signature."""
    return {
        "UNPACKENV_ARCHIVE": f"{server.url.replace('//', '//user:SECRET@')}/a?signature=SECRET#sha256={digest}",
        "UNPACKENV_TARGET": tmp_path / "trees" / "tree",
        "UNPACKENV_FETCH_TIMEOUT": 0.5,
        "NO_PROXY": "*",
    }


def of_the_server(found: Diagnosis) -> dict[str, str]:
    """Return the levels of what was found on the way to an archive, by topic, in their order."""
    return {one["topic"]: one["level"] for one in found.found["findings"] if one["topic"] in TOPICS}


def test_all_is_well(server: FileServer, variables: Variables) -> None:
    """The way to the server is tried without what is secret, and nobody learns which archive it is."""
    found = doctor(**variables)
    assert (found.returncode, found.problems) == (0, [])
    assert list(of_the_server(found)) == ["address", "network", "clock", "credentials", "server", "ranges", "digest"]
    assert set(of_the_server(found).values()) == {"ok"}
    assert found.only("address")["text"] == f"{server.url}/a"
    assert found.only("server")["facts"]["size"] == len(server.data)
    assert found.only("network")["facts"]["addresses"] == ["127.0.0.1"]
    (head,) = server.heads
    assert (head[0], set(head[1]) & {"Authorization", "Range"}) == ("/", set())
    assert found.found["summary"].startswith(f"A start here unpacks to {variables['UNPACKENV_TARGET']}")
    assert start(**variables) == ""


def test_a_start_that_finds_its_tree_needs_no_server(variables: Variables) -> None:
    """What is wrong with the server is a warning then."""
    assert start(**variables) == ""
    assert doctor(**variables).found["summary"].startswith("A start here takes the tree that is at ")
    for url in ("http://user:SECRET@127.0.0.1:9/a", "ftp://127.0.0.1/a"):
        gone = {**variables, "UNPACKENV_ARCHIVE": f"{url}#{variables['UNPACKENV_ARCHIVE'].partition('#')[2]}"}
        found = doctor(**gone)
        assert (found.returncode, found.problems) == (0, [])
        assert found.found["summary"].startswith("A start here takes the tree that is at ")
        assert "warning" in of_the_server(found).values()
        assert start(**gone) == ""


# --- what fails for a start, too -----------------------------------------------------------------


def test_another_archive(variables: Variables) -> None:
    url = variables["UNPACKENV_ARCHIVE"].partition("#")[0]
    other = {**variables, "UNPACKENV_ARCHIVE": f"{url}#sha256={'0' * 64}"}
    found = doctor(**other)
    assert (found.returncode, found.problems) == (1, ["digest-mismatch"])
    assert start(**other) == "digest-mismatch"


WRONG: dict[str, tuple[str, str, str]] = {
    "no scheme that is known": ("ftp://127.0.0.1/a", "server", "an archive is fetched by one of https://"),
    "not encrypted": ("http://user:SECRET@192.0.2.1/a", "server", "http:// is not encrypted"),
    "no such name": ("https://user:SECRET@nobody.invalid/a", "network", "nobody.invalid has no address ("),
    "nobody listens": ("http://user:SECRET@127.0.0.1:9/a", "network", "cannot be connected to (Connection refused)"),
    "a password that is not known": ("https://u:SECRET@h/${NOBODY}", "settings", "the URL is not a path: it has a"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_server_that_cannot_be_asked(variables: Variables, digest: str, what: str) -> None:
    url, topic, text = WRONG[what]
    wrong = {**variables, "UNPACKENV_ARCHIVE": f"{url}#sha256={digest}"}
    found = doctor(**wrong)
    assert found.returncode == 1
    problem = found.only(topic, "problem")
    assert text in problem["text"]
    assert problem["hint"] or "is fetched by one of" in text
    assert found.problems == [start(**wrong)]


@pytest.mark.parametrize(
    ("status", "reason", "text"),
    [
        (404, "archive-not-found", "there is no archive (404"),
        (403, "archive-unreachable", "the server refuses it (403"),
        (500, "archive-unreachable", "cannot be fetched within 0.5 s (the server answers 500"),
        (416, "archive-unreachable", "the server answers 416"),
    ],
)
def test_a_server_that_refuses(server: FileServer, variables: Variables, status: int, reason: str, text: str) -> None:
    server.fault = lambda handler, number: handler.answer(status)
    found = doctor(**variables)
    assert (found.returncode, found.problems) == (1, [reason])
    assert text in found.only("server", "problem")["text"]
    assert [found.only(topic)["level"] for topic in ("network", "clock", "credentials")] == ["ok"] * 3
    assert start(**variables) == reason


def test_what_is_fetched_without_encryption(server: FileServer, variables: Variables, digest: str) -> None:
    """By a proxy, which has a password, too."""
    proxy = server.url.replace("//", "//somebody:SECRET@")
    by_proxy = {"UNPACKENV_INSECURE": "yes", "http_proxy": proxy, "NO_PROXY": ""}
    url = f"http://user:SECRET@elsewhere.invalid/a?SECRET#sha256={digest}"
    found = doctor(**{**variables, **by_proxy, "UNPACKENV_ARCHIVE": url})
    assert (found.returncode, found.problems) == (0, [])
    assert found.only("address", "warning")["text"].startswith("http://elsewhere.invalid/a: is not encrypted")
    text = f"127.0.0.1:{server.server_port} is asked for elsewhere.invalid, as http_proxy says"
    assert found.only("proxy", "ok")["text"] == text
    assert [path for path, _ in server.heads] == ["http://elsewhere.invalid/"]


def test_a_proxy_that_is_not_there(variables: Variables, digest: str) -> None:
    url = f"https://user:SECRET@elsewhere.invalid/a#sha256={digest}"
    by_proxy = {"https_proxy": "http://somebody:SECRET@127.0.0.1:9", "NO_PROXY": "", "UNPACKENV_ARCHIVE": url}
    found = doctor(**{**variables, **by_proxy})
    assert "the proxy 127.0.0.1:9 (127.0.0.1) cannot be connected to" in found.only("network", "problem")["text"]
    assert found.only("proxy")["level"] == "ok"


# --- certificates and clocks ---------------------------------------------------------------------


@pytest.fixture
def encrypted(archive: Path, tmp_path: Path) -> Iterator[FileServer]:
    with serving(archive.read_bytes(), certificate=make_certificate(tmp_path)) as running:
        yield running


def by_https(server: FileServer, variables: Variables, host: str = "127.0.0.1") -> Variables:
    digest = variables["UNPACKENV_ARCHIVE"].partition("#")[2]
    return {**variables, "UNPACKENV_ARCHIVE": f"https://user:SECRET@{host}:{server.server_port}/a?SECRET#{digest}"}


def test_certificates(encrypted: FileServer, variables: Variables, tmp_path: Path) -> None:
    """One that nobody vouches for, one that is valid for two days more, and one that is for another name."""
    encrypted.ahead = 7200
    unknown = doctor(**by_https(encrypted, variables))
    assert unknown.problems == ["archive-unreachable"] == [start(**by_https(encrypted, variables))]
    assert "the server's certificate is not valid (self" in unknown.only("TLS")["text"]
    assert "SSL_CERT_FILE names others" in unknown.only("TLS")["hint"]
    assert unknown.only("clock", "warning")["text"] == "is 2 hours behind that of the server"
    assert (encrypted.requests, {path for path, _ in encrypted.heads}) == ([], {"/"})
    trusted = {**variables, "SSL_CERT_FILE": tmp_path / "public.pem"}
    known = doctor(**by_https(encrypted, trusted))
    assert (known.returncode, known.problems) == (0, [])
    assert ", for 1 day more" in known.only("TLS", "warning")["text"]
    assert known.only("TLS")["facts"]["version"].startswith("TLSv1.")
    other = doctor(**by_https(encrypted, trusted, "localhost"))
    assert other.problems == ["archive-unreachable"]
    assert other.only("TLS")["hint"] == "Use the name for which it was issued"


def test_a_server_that_speaks_no_tls(server: FileServer, variables: Variables) -> None:
    found = doctor(**by_https(server, variables))
    assert "does not speak TLS as it should" in found.only("TLS", "problem")["text"]
    assert found.problems == ["archive-unreachable"] == [start(**by_https(server, variables))]


def test_a_proxy_for_tls(encrypted: FileServer, variables: Variables, tmp_path: Path) -> None:
    with tunneling() as proxy:
        by_proxy = {"https_proxy": proxy.url.replace("//", "//somebody:SECRET@"), "NO_PROXY": ""}
        more = {**by_proxy, "SSL_CERT_FILE": tmp_path / "public.pem"}
        found = doctor(**{**by_https(encrypted, variables), **more})
    assert (found.returncode, found.problems) == (0, [])
    assert found.only("proxy")["facts"]["port"] == proxy.server_port
    assert found.only("TLS", "warning")["facts"]["version"].startswith("TLSv1.")
    assert {path for path, _ in encrypted.heads} == {"/"}


@pytest.mark.parametrize(
    ("ahead", "text"),
    [
        (0, ""),
        (240, ""),
        (-240, ""),
        (420, "is 7 minutes behind that of the server"),
        (-7200, "is 2 hours ahead of that of the server"),
        (3 * 86400, "is 3 days behind that of the server"),
    ],
)
def test_clocks_that_differ(server: FileServer, variables: Variables, ahead: float, text: str) -> None:
    """Also if the server refuses the archive, perhaps since a signature has expired."""
    server.ahead = ahead
    server.fault = lambda handler, number: handler.answer(403)
    clock = doctor(**variables).only("clock")
    assert (clock["level"], clock["text"]) == (("warning", text) if text else ("ok", "agrees with that of the server"))


# --- credentials ---------------------------------------------------------------------------------


def test_credentials_of_a_url(server: FileServer, variables: Variables) -> None:
    url = variables["UNPACKENV_ARCHIVE"]
    without_user = url.replace("user:SECRET@", "")
    for given, text in (
        (url, "user and password and a query of the URL"),
        (url.replace("?signature=SECRET", ""), "user and password of the URL"),
        (without_user, "a query of the URL"),
        (without_user.replace("?signature=SECRET", ""), "none: the URL has neither user nor query"),
    ):
        said = doctor(**{**variables, "UNPACKENV_ARCHIVE": given}).only("credentials", "ok")["text"]
        assert said.partition(", which may be a signature")[0] == text


class Registry:
    """Has a file server answer as a registry does that has one archive; for a user with the password SECRET, or all."""

    def __init__(self, server: FileServer, digest: str, *, is_public: bool) -> None:
        self._blob = f"sha256:{sha256(server.data).hexdigest()}"
        layer = {"mediaType": "application/vnd.unpackenv.archive.v1.tar+zstd", "digest": self._blob, "size": 1}
        annotations = {"io.unpackenv.digest": digest}
        self.manifest = json.dumps({"schemaVersion": 2, "layers": [layer], "annotations": annotations}).encode()
        self.address = f"127.0.0.1:{server.server_port}"
        self._is_public = is_public
        server.fault = self._answer

    def _answer(self, handler: Any, number: int) -> bool:
        user = base64.b64encode(b"user:SECRET").decode()
        if not self._is_public and handler.headers.get("Authorization") != f"Basic {user}":
            return bool(handler.answer(401, WWW_Authenticate='Basic realm="here"'))
        if handler.path == "/v2/team/app/manifests/1":
            return bool(handler.answer(200, self.manifest))
        return handler.path != f"/v2/team/app/blobs/{self._blob}" and bool(handler.answer(404))

    def url(self, digest: str) -> str:
        return f"oci://{self.address}/team/app:1#sha256={digest}"


def docker_config(folder: Path, registry: str, password: str) -> Path:
    folder.mkdir(exist_ok=True)
    auth = base64.b64encode(f"user:{password}".encode()).decode()
    (folder / "config.json").write_text(json.dumps({"auths": {registry: {"auth": auth}}}))
    return folder


@pytest.mark.parametrize("is_public", [True, False])
def test_a_registry(server: FileServer, variables: Variables, digest: str, tmp_path: Path, is_public: bool) -> None:
    registry = Registry(server, digest, is_public=is_public)
    config = docker_config(tmp_path / "docker", registry.address, "SECRET")
    wanted = {**variables, "UNPACKENV_ARCHIVE": registry.url(digest), "DOCKER_CONFIG": config}
    found = doctor(**wanted)
    assert (found.returncode, found.problems) == (0, [])
    text = f"user and password for {registry.address}, from {config}/config.json"
    assert found.only("credentials", "ok")["text"] == text
    takes = "wants no credentials" if is_public else "takes the credentials"
    assert f"is handed out by the server, which {takes}; " in found.only("server", "ok")["text"]
    assert found.only("digest", "ok")
    assert start(**wanted) == ""


def test_a_registry_that_takes_no_such_credentials(
    server: FileServer, variables: Variables, digest: str, tmp_path: Path
) -> None:
    """Other ones, none, or a configuration that cannot be read."""
    registry = Registry(server, digest, is_public=False)
    wanted = {**variables, "UNPACKENV_ARCHIVE": registry.url(digest)}
    wrong = {**wanted, "DOCKER_CONFIG": docker_config(tmp_path / "wrong", registry.address, "SECRET too")}
    assert doctor(**wrong).problems == ["archive-unreachable"] == [start(**wrong)]
    none = {**wanted, "DOCKER_CONFIG": tmp_path / "none"}
    found = doctor(**none)
    assert found.only("credentials", "note")["text"].startswith(f"none for {registry.address} in {tmp_path}/none/")
    assert found.problems == ["archive-unreachable"] == [start(**none)]
    broken = {**wanted, "DOCKER_AUTH_CONFIG": '{"auths": "SECRET"}'}
    assert doctor(**broken).problems == ["archive-unreachable"] == [start(**broken)]


def test_a_registry_without_the_archive(server: FileServer, variables: Variables, digest: str) -> None:
    registry = Registry(server, digest, is_public=True)
    registry.manifest = b"{}"
    wanted = {**variables, "UNPACKENV_ARCHIVE": registry.url(digest)}
    assert doctor(**wanted).problems == ["archive-not-found"] == [start(**wanted)]


# --- ranges, libraries ---------------------------------------------------------------------------


def test_a_server_that_knows_no_ranges(server: FileServer, variables: Variables, tmp_path: Path, mount: Mount) -> None:
    """All of it goes into a temporary file, for which there must be room."""
    server.ranges = False
    found = doctor(**variables, TMPDIR=tmp_path)
    assert (found.returncode, found.problems) == (0, [])
    ranges = found.only("ranges", "warning")
    assert f"into a temporary file in {tmp_path}, which has room for " in ranges["text"]
    assert ranges["facts"]["need"] == len(server.data)
    (tmp_path / "small").mkdir()
    mount("-t", "tmpfs", "-o", "size=4k", "none", tmp_path / "small")
    server.data += bytes(8192)
    full = doctor(**variables, TMPDIR=tmp_path / "small")
    assert (full.returncode, full.problems) == (1, ["no-space"])
    assert full.only("ranges", "problem")["hint"]
    assert start(**variables, TMPDIR=tmp_path / "small") == "no-space"


def test_a_server_that_does_not_say_how_much_it_is(server: FileServer, variables: Variables) -> None:
    server.fault = lambda handler, number: handler.answer(200, Content_Length="much")
    found = doctor(**variables)
    assert found.only("ranges", "problem")["facts"]["need"] is None
    assert found.problems == ["archive-unreachable"] == [start(**variables)]


@pytest.mark.parametrize("scheme", ["s3", "gs", "az"])
def test_an_object_store_needs_a_library(variables: Variables, digest: str, tmp_path: Path, scheme: str) -> None:
    library = {"s3": "s3fs", "gs": "gcsfs", "az": "adlfs"}[scheme]
    hidden = write_tree(tmp_path / "hidden", {"sitecustomize.py": f"import sys\nsys.modules[{library!r}] = None\n"})
    there = write_tree(tmp_path / "there", {"fsspec/__init__.py": "raise OSError\n", f"{library}.py": ""})
    wanted = {**variables, "UNPACKENV_ARCHIVE": f"{scheme}://bucket/key?SECRET#sha256={digest}"}
    path = environment()["PYTHONPATH"]
    without = doctor(**{**wanted, "PYTHONPATH": f"{hidden}:{there}:{path}"})
    assert without.problems == ["extra-missing"]
    library_missing = without.only("library", "problem")
    assert f"needs {library}, which is not installed here" in library_missing["text"]
    assert library_missing["hint"] == f"pip install 'unpackenv[{scheme}]'"
    code = "from unpackenv.report.doctor import remote\nfrom unpackenv.start.settings import Settings\n"
    code += "result = [(each.topic, each.level, each.text) for each in remote.examine(Settings({}))]"
    code += "\nimport json; print(json.dumps(result))"
    done = run([sys.executable, "-c", code], environment(**{**wanted, "PYTHONPATH": f"{there}:{path}"}))
    (found, credentials) = json.loads(done.stdout)
    assert (found[:2], credentials[:2]) == (["library", "ok"], ["credentials", "note"])
    check_secrets(done.stdout)


# --- the cache -----------------------------------------------------------------------------------


def files_of(folder: Path) -> dict[str, float]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_a_cache(server: FileServer, variables: Variables, tmp_path: Path) -> None:
    """Not there yet, and in use; the doctor asks the server all the same, and leaves the cache as it is."""
    cached = {**variables, "UNPACKENV_CACHE": tmp_path / "cache", "UNPACKENV_CACHE_SIZE": "1M"}
    assert "is not there yet; the first start makes it" in doctor(**cached).only("cache", "note")["text"]
    assert not (tmp_path / "cache").exists()
    assert start(**cached) == ""
    before, asked = files_of(tmp_path / "cache"), len(server.requests)
    found = doctor(**{**cached, "UNPACKENV_TARGET": tmp_path / "trees/other"})
    assert len(server.requests) > asked
    facts = found.only("cache", "ok")["facts"]
    files = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert (facts["files"], facts["used"]) == (len(files), sum(path.stat().st_size for path in files))
    assert facts["limit"] == 1 << 20
    assert " of 1.0 MB in " in found.only("cache", "ok")["text"]
    assert files_of(tmp_path / "cache") == before


def test_a_cache_that_helps_little(variables: Variables, tmp_path: Path, mount: Mount) -> None:
    """A start goes on without it, so these are warnings."""
    (tmp_path / "file").touch()
    (tmp_path / "fixed").mkdir()
    mount("-t", "tmpfs", "-o", "ro", "none", tmp_path / "fixed")
    (tmp_path / "full").mkdir()
    mount("-t", "tmpfs", "-o", "size=4k", "none", tmp_path / "full")
    for place, size, text in (
        ("file", "1M", "is no directory"),
        ("fixed", "1M", "cannot be written (Read-only file system)"),
        ("fixed/cache", "1M", "is not there, and cannot be made (Read-only file system)"),
        ("full", "1M", "; the archive has "),
        ("", "100", "; the archive has "),
    ):
        cached = {**variables, "UNPACKENV_CACHE": tmp_path / place, "UNPACKENV_CACHE_SIZE": size}
        cached["UNPACKENV_TARGET"] = tmp_path / f"trees/{place}-{size}"
        found = doctor(**cached)
        assert found.returncode == 0
        one = found.only("cache", "warning")
        assert (text in one["text"], bool(one["hint"])) == (True, True), one
        assert start(**cached) == ""


def test_a_server_that_fails_beside_a_cache(server: FileServer, variables: Variables, tmp_path: Path) -> None:
    cached = {**variables, "UNPACKENV_CACHE": tmp_path / "cache"}
    assert start(**cached) == ""
    server.fault = lambda handler, number: handler.answer(403)
    elsewhere = {**cached, "UNPACKENV_TARGET": tmp_path / "trees/other"}
    found = doctor(**elsewhere)
    assert found.problems == ["archive-unreachable"]
    assert "it succeeds if all of the archive is there" in found.only("cache", "note")["text"]
    assert start(**elsewhere) == ""


def test_the_text(server: FileServer, variables: Variables, tmp_path: Path) -> None:
    """As a person reads it, whatever goes wrong."""
    for status in (0, 403, 404):
        server.fault = lambda handler, number, status=status: bool(status and handler.answer(status))  # type: ignore[misc]
        done = run(wrapper("doctor"), environment(**variables, UNPACKENV_CACHE=tmp_path / "cache"))
        assert done.stderr == ""
        assert done.returncode == bool(status)
        check_secrets(done.stdout)
        assert f"{server.url}/a" in done.stdout


def test_a_runtime_has_it(server: FileServer, variables: Variables, tmp_path: Path) -> None:
    done = run(wrapper("runtime", tmp_path / "runtime"))
    assert done.returncode == 0, done.stderr
    env = {**{name: str(value) for name, value in variables.items()}, "PATH": os.defpath}
    env["PYTHONPATH"] = str(tmp_path / "runtime")
    found = Diagnosis(run([sys.executable, "-S", "-m", "unpackenv", "doctor", "--json"], env))
    assert (found.returncode, found.problems) == (0, [])
    assert list(of_the_server(found))[-2:] == ["ranges", "digest"]
