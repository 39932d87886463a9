"""Archives by URL, from servers on loopback: what is fetched, what goes wrong, and what nobody may see."""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import zstandard

from helpers.file_server import FileServer, make_certificate, serving, tunneling
from helpers.fills import content, make_site, wait_until_filled, wrong_files
from helpers.processes import PATHS, python, result_of, run, wrapper
from helpers.starts import SOCKETS_REPLACED, boot_code
from rig.environment import PATIENCE, SOURCE, environment
from rig.sites import TAG, members_of, pack
from unpackenv.archive import trailer
from unpackenv.archive.reader import open_archive

pytestmark = pytest.mark.usefixtures("no_fill_left")

TRIED = 4  # seconds; enough for some attempts
SILENT = 15  # seconds; sooner than a start gives a silent connection up


@pytest.fixture(scope="session")
def made(large: tuple[Path, dict[str, int]]) -> tuple[Path, dict[str, int]]:
    return large


@pytest.fixture
def archive(made: tuple[Path, dict[str, int]]) -> Path:
    return made[0]


@pytest.fixture
def digest(archive: Path) -> str:
    return trailer.identify(str(archive)).digest


def settings(server: FileServer, digest: str, target: Path, **more: object) -> dict[str, str]:
    url = f"{server.url}/files/archive.tar.zst#sha256={digest}"
    own = {"UNPACKENV_ARCHIVE": url, "UNPACKENV_TARGET": target, "UNPACKENV_FETCH_TIMEOUT": TRIED, "NO_PROXY": "*"}
    return environment(**{**own, **more})


def start(env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return run(wrapper("--", "echo", "started"), env)


def check_error(done: subprocess.CompletedProcess[str], target: Path, what: str) -> None:
    """See that a start has said what is wrong, in one line, and left nothing."""
    assert (done.returncode, done.stdout) == (125, ""), done.stderr
    (line,) = done.stderr.splitlines()
    assert what in line
    assert [each for each in target.parent.iterdir() if "tree" in each.name and "lock" not in each.name] == []


# --- what is fetched -----------------------------------------------------------------------------


@pytest.mark.parametrize("door", ["bootstrap", "wrapper", "unpack"])
def test_a_start_by_url(server: FileServer, digest: str, target: Path, sizes: dict[str, int], door: str) -> None:
    env = settings(server, digest, target)
    commands: dict[str, Any] = {
        "bootstrap": lambda: python(boot_code(), env),
        "wrapper": lambda: start(env),
        "unpack": lambda: run(wrapper("unpack", env["UNPACKENV_ARCHIVE"], "-C", target), env),
    }
    done = commands[door]()
    assert done.returncode == 0, done.stderr
    assert wrong_files(target, sizes) == []
    before = len(server.requests)
    done = commands[door]()
    assert "reused" in done.stderr, done.stderr
    assert len(server.requests) == before, "a start of a tree that is there asks the network nothing"


def test_the_application_has_no_modules_of_it(server: FileServer, digest: str, target: Path) -> None:
    code = boot_code(
        rest="import sys\nresult = [name for name in ('ssl', 'http.client', 'socket') if name in sys.modules]"
    )
    assert result_of(code, settings(server, digest, target)) == []


def test_neighbours_are_fetched_together(server: FileServer, digest: str, target: Path, archive: Path) -> None:
    assert start(settings(server, digest, target)).returncode == 0
    with open_archive(str(archive)) as opened:
        assert len(server.requests) < 0.7 * len(opened.toc.frame_raw)


@pytest.fixture
def noise(tmp_path: Path) -> tuple[bytes, str]:
    """An archive that takes several requests, and its digest."""
    site = tmp_path / "site"
    site.mkdir()
    (site / "noise").write_bytes(os.urandom(9_000_000))
    packed = pack(tmp_path / "archive", members_of(site), frame_size=1_500_000, facts={"python": [TAG]})
    return (tmp_path / "archive").read_bytes(), packed.digest


def test_a_worker_fetches_ahead_over_two_connections(noise: tuple[bytes, str], target: Path) -> None:
    both = threading.Barrier(2, timeout=SILENT)
    data, digest = noise
    with serving(data) as server:
        server.fault = lambda handler, number: number in (2, 3) and both.wait() < 0
        env = settings(server, digest, target, UNPACKENV_WORKERS=1, UNPACKENV_FETCH_TIMEOUT=PATIENCE)
        assert start(env).returncode == 0
    assert not both.broken


IMPORTS_SLOWLY = """
import sys, time
from unpackenv.start.remote.ahead import Ahead
class SlowFinder:
    def find_spec(self, name, *_):
        if name == "selectors":  # `socket` imports it before its own class is there
            time.sleep(1)
sys.meta_path.insert(0, SlowFinder())
start_thread = Ahead._start_thread
Ahead._start_thread = lambda ahead: start_thread(ahead) or time.sleep(0.5)
"""


def test_a_connection_that_begins_while_another_one_does(noise: tuple[bytes, str], target: Path) -> None:
    """Neither takes the modules that the other one imports for those of an application that has replaced them."""
    data, digest = noise
    with serving(data) as server:
        done = python(IMPORTS_SLOWLY + boot_code(), settings(server, digest, target, UNPACKENV_WORKERS=1))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("fill", ["behind", "on-demand"])
def test_names_first(server: FileServer, digest: str, target: Path, sizes: dict[str, int], fill: str) -> None:
    env = settings(server, digest, target, UNPACKENV_FILL=fill)
    rest = f"from helpers.fills import wrong_files\nresult = report.outcome, wrong_files({str(target)!r}, {sizes!r})"
    env["PYTHONPATH"] = os.pathsep.join([env["PYTHONPATH"], *PATHS])
    assert result_of(boot_code(rest=rest), env) == ["named", []]
    wait_until_filled(target)
    assert server.sent <= 1.05 * len(server.data) + (1 << 20)


def test_on_demand_fetches_what_is_opened(server: FileServer, digest: str, target: Path, sizes: dict[str, int]) -> None:
    rest = f"result = len(open({str(target / 'large/spans.bin')!r}, 'rb').read())"
    env = settings(server, digest, target, UNPACKENV_FILL="on-demand")
    assert result_of(boot_code(rest=rest), env) == sizes["large/spans.bin"]
    ranges = {headers["Range"] for _, headers in server.requests}
    assert 1 < len(ranges) < 60
    assert server.sent < (1 << 20) + 2 * sizes["large/spans.bin"]


@pytest.mark.parametrize("ranges", [True, False])
def test_commands_that_read(server: FileServer, digest: str, target: Path, ranges: bool) -> None:
    server.ranges = ranges
    env = settings(server, digest, target)
    url = env["UNPACKENV_ARCHIVE"]
    shown = url.partition("#")[0]
    assert run(wrapper("verify", url), env).stdout == f"{shown}: sound\n"
    done = run(wrapper("inspect", url), env)
    assert done.stdout.startswith(f"{shown}\n  digest {digest}\n"), done.stderr
    done = run(wrapper("doctor"), env)
    assert f"{shown}: " in done.stdout, done.stdout + done.stderr
    assert start(env).returncode == 0
    assert run(wrapper("verify", url, "--target", target), env).stdout == f"{target}: complete and unaltered\n"


@pytest.mark.parametrize("fill", ["before", "behind", "on-demand"])
def test_a_server_without_ranges_is_read_once(
    server: FileServer, digest: str, target: Path, sizes: dict[str, int], fill: str
) -> None:
    server.ranges = False
    assert wrong_files_of_a_start(settings(server, digest, target, UNPACKENV_FILL=fill), target, sizes) == []
    assert len(server.requests) == 1


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("fill", ["before", "behind"])
def test_an_archive_of_plain_tar(tmp_path: Path, target: Path, fill: str, ranges: bool) -> None:
    sizes = make_site(tmp_path / "site")
    (tmp_path / "site/zzz").write_bytes(os.urandom(1_500_000))
    packed = tmp_path / "packages.tar.xz"
    subprocess.run(["tar", "-C", tmp_path / "site", "-cJf", packed, "."], check=True)
    digest = hashlib.sha256(packed.read_bytes()).hexdigest()
    with serving(packed.read_bytes()) as server:
        server.ranges = ranges
        env = settings(server, digest, target, UNPACKENV_FILL=fill)
        assert start(env).returncode == 0
        assert wrong_files(target, sizes) == []
        before = len(server.requests)
        assert "reused" in start(env).stderr
        assert len(server.requests) == before
        elsewhere = tmp_path / "elsewhere/tree"
        check_error(start(settings(server, "0" * 64, elsewhere)), elsewhere, f"but {'0' * 64} is required")


def wrong_files_of_a_start(env: dict[str, str], target: Path, sizes: dict[str, int]) -> object:
    """Start, and return what is wrong as the application sees it."""
    rest = f"from helpers.fills import wrong_files\nresult = wrong_files({str(target)!r}, {sizes!r})"
    return result_of(boot_code(rest=rest), {**env, "PYTHONPATH": os.pathsep.join([env["PYTHONPATH"], *PATHS])})


@pytest.mark.parametrize("fill", ["before", "behind"])
@pytest.mark.parametrize("threaded", [False, True])
@pytest.mark.parametrize("replaced", SOCKETS_REPLACED)
def test_an_application_that_has_replaced_sockets(
    server: FileServer, digest: str, target: Path, sizes: dict[str, int], replaced: str, threaded: bool, fill: str
) -> None:
    thread = "import threading, time; threading.Thread(target=time.sleep, args=(600,), daemon=True).start()"
    rest = f"""import socket
assert socket.socket is mine
from helpers.fills import wrong_files
assert wrong_files({str(target)!r}, {sizes!r}) == []
print('right')"""
    before = f"{thread if threaded else ''}\n{SOCKETS_REPLACED[replaced]}\nimport socket; mine = socket.socket\n"
    env = settings(server, digest, target, UNPACKENV_FILL=fill)
    env["PYTHONPATH"] = os.pathsep.join([env["PYTHONPATH"], *PATHS])
    done = python(before + boot_code(rest=rest), env)
    assert (done.returncode, done.stdout) == (0, "right\n"), done.stderr


def test_a_hook(server: FileServer, digest: str, tmp_path: Path, sizes: dict[str, int]) -> None:
    venv, target = tmp_path / "venv", tmp_path / "tree"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    url = settings(server, digest, target)["UNPACKENV_ARCHIVE"]
    (site,) = venv.glob("lib/python*/site-packages")
    (site / "source.pth").write_text(f"{SOURCE}\n{Path(zstandard.__file__).parents[1]}\n")
    done = run([venv / "bin/python", "-m", "unpackenv", "hook", "--auto", "--archive", url, "--target", target])
    assert done.returncode == 0, done.stderr
    done = run([venv / "bin/python", "-c", "print('started')"], environment(NO_PROXY="*"))
    assert (done.returncode, done.stdout) == (0, "started\n"), done.stderr
    assert wrong_files(target, sizes) == []


# --- faults --------------------------------------------------------------------------------------


def reset(handler: Any) -> bool:
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    handler.connection.close()
    handler.close_connection = True
    return True


TEMPORARY = {
    "500": lambda handler: handler.answer(500),
    "503, Retry-After": lambda handler: handler.answer(503, Retry_After="1"),
    "429, Retry-After as a date": lambda handler: handler.answer(429, Retry_After="Thu, 01 Jan 2026 00:00:00 GMT"),
    "reset": reset,
    "cut": lambda handler: handler.serve(cut=1) or True,
    "cut in the middle": lambda handler: handler.serve(cut=5000) or True,
    "stalled": lambda handler: time.sleep(TRIED) or True,
    "closed": lambda handler: setattr(handler, "close_connection", True) or True,
}


@pytest.mark.parametrize("fill", ["before", "on-demand"])
@pytest.mark.parametrize("what", TEMPORARY)
def test_what_is_over_soon_is_tried_again(
    server: FileServer, digest: str, target: Path, sizes: dict[str, int], what: str, fill: str
) -> None:
    server.fault = lambda handler, number: number in (1, 4) and TEMPORARY[what](handler)
    env = settings(server, digest, target, UNPACKENV_FILL=fill)
    done = run(wrapper("--", "sha256sum", target / "large/spans.bin"), env)
    assert done.returncode == 0, done.stderr
    content_of_it = content("large/spans.bin", sizes["large/spans.bin"])
    assert done.stdout.split()[0] == hashlib.sha256(content_of_it).hexdigest()


def drip(handler: Any) -> bool:
    """Send a byte now and then, for ever."""
    handler.send_response(206)
    handler.send_header("X-Long", "x" * 50)
    handler.wfile.write(b"".join(handler._headers_buffer))
    handler._headers_buffer = []
    try:
        while True:
            handler.wfile.write(b"x")
            handler.wfile.flush()
            time.sleep(0.2)
    except OSError:
        handler.close_connection = True
    return True


PERMANENT = {
    "404": (lambda handler: handler.answer(404), "there is no archive (404"),
    "401": (lambda handler: handler.answer(401), "the server refuses it (401"),
    "403": (lambda handler: handler.answer(403), "the server refuses it (403"),
    "416": (lambda handler: handler.answer(416), "the server answers 416"),
    "500": (lambda handler: handler.answer(500), f"cannot be fetched within {TRIED} s (the server answers 500"),
    "Retry-After too long": (lambda handler: handler.answer(503, Retry_After="99"), "the server answers 503"),
    "reset": (reset, f"cannot be fetched within {TRIED} s ("),
    "cut": (lambda handler: handler.serve(cut=1) or True, f"cannot be fetched within {TRIED} s (the server sent "),
    "replaced": (lambda handler: handler.serve(version='"two"') or True, "has been replaced by another file"),
    "wrong bytes": (lambda handler: handler.serve(flip=True) or True, "is damaged"),
    "more bytes": (lambda handler: handler.serve(more=1) or True, "more bytes than were asked for"),
    "stalled": (
        lambda handler: time.sleep(TRIED) or True,
        f"cannot be fetched within {TRIED} s (no byte for ",
    ),
    "a byte now and then": (drip, f"cannot be fetched within {TRIED} s (the server sends too slowly"),
    "to another scheme": (lambda handler: handler.answer(302, Location="gopher://a/b"), "and that is refused"),
    "to a machine without TLS": (
        lambda handler: handler.answer(302, Location="http://192.0.2.1/"),
        "and that is refused: http:// is not encrypted",
    ),
    "in circles": (lambda handler: handler.answer(302, Location="/again"), "leads to other places more than 5 times"),
    "no range": (lambda handler: handler.answer(206), "has no usable range (none)"),
}


@pytest.mark.parametrize("what", PERMANENT)
def test_what_stays_wrong_is_said(server: FileServer, digest: str, target: Path, what: str) -> None:
    fault, says = PERMANENT[what]
    server.fault = lambda handler, number: number > 1 and fault(handler)
    check_error(start(settings(server, digest, target)), target, says)


@pytest.mark.parametrize("what", ["500", "wrong bytes", "404"])
def test_while_the_application_runs_it_ends(server: FileServer, digest: str, target: Path, what: str) -> None:
    fault, says = PERMANENT[what]
    server.fault = lambda handler, number: "large" in os.listdir(target.parent) and fault(handler)
    env = settings(server, digest, target, UNPACKENV_FILL="on-demand", UNPACKENV_FETCH_TIMEOUT=1)
    go, path = str(target.parent / "large"), str(target / "large/spans.bin")
    done = python(boot_code(rest=f"open({go!r}, 'w').close()\nopen({path!r}).read()\nprint('read')"), env)
    assert (done.returncode, done.stdout) == (-9, ""), done.stderr
    assert says.partition(" within")[0] in done.stderr


@pytest.mark.slow
def test_a_server_that_answers_no_more_ends_the_application(
    server: FileServer, digest: str, target: Path, sizes: dict[str, int]
) -> None:
    """Before the kernel lets it in by force, after 45 s."""
    ended = threading.Event()
    server.fault = lambda handler, number: "large" in os.listdir(target.parent) and (ended.wait(PATIENCE) or True)
    env = settings(server, digest, target, UNPACKENV_FILL="on-demand", UNPACKENV_FETCH_TIMEOUT=PATIENCE)
    go, path = str(target.parent / "large"), str(target / "large/spans.bin")
    done = python(boot_code(rest=f"open({go!r}, 'w').close()\nopen({path!r}).read()\nprint('read')"), env)
    ended.set()
    assert (done.returncode, done.stdout) == (-9, ""), done.stderr
    assert f"somebody waits for a file, and {server.url}/files/archive.tar.zst could not be read for" in done.stderr


def test_nobody_listens(server: FileServer, digest: str, target: Path) -> None:
    env = settings(server, digest, target, UNPACKENV_FETCH_TIMEOUT=0.5)
    server.socket.close()
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        env["UNPACKENV_ARCHIVE"] = f"http://127.0.0.1:{closed.getsockname()[1]}/a#sha256={digest}"
    check_error(start(env), target, "cannot be fetched within 0.5 s (Connection refused)")


def test_a_host_without_an_address(server: FileServer, digest: str, target: Path) -> None:
    url = f"https://nobody.invalid/a#sha256={digest}"
    env = settings(server, digest, target, UNPACKENV_ARCHIVE=url, UNPACKENV_FETCH_TIMEOUT=0.5)
    check_error(start(env), target, "its host has no address")


def test_another_archive(server: FileServer, target: Path) -> None:
    done = start(settings(server, "0" * 64, target))
    check_error(done, target, f"but {'0' * 64} is required")


def test_no_archive(digest: str, target: Path) -> None:
    with serving(b"<html>" * 100) as server:
        check_error(start(settings(server, digest, target)), target, f"but {digest} is required. Check the URL")


@pytest.mark.parametrize(
    ("length", "says"), [("", "neither knows ranges nor says how long"), (str(1 << 60), "has no room for the ")]
)
def test_a_whole_file_must_fit(server: FileServer, digest: str, target: Path, length: str, says: str) -> None:
    server.fault = lambda handler, number: handler.answer(200, Content_Length=length)
    check_error(start(settings(server, digest, target)), target, says)


# --- where it may lead ---------------------------------------------------------------------------


def test_redirects_take_no_password_to_another_server(
    archive: Path, server: FileServer, digest: str, target: Path, sizes: dict[str, int]
) -> None:
    server.fault = lambda handler, number: handler.answer(307, Location=f"{other.url}/there?signature=1")
    with serving(archive.read_bytes(), "127.0.0.2") as other:
        env = settings(server, digest, target)
        env["UNPACKENV_ARCHIVE"] = env["UNPACKENV_ARCHIVE"].replace("http://", "http://user:pass%20word@")
        assert start(env).returncode == 0
        assert wrong_files(target, sizes) == []
        basic = base64.b64encode(b"user:pass word").decode()
        assert {headers.get("Authorization") for _, headers in server.requests} == {f"Basic {basic}"}
        assert {headers.get("Authorization") for _, headers in other.requests} == {None}
        assert {path for path, _ in other.requests} == {"/there?signature=1"}


def test_a_link_that_expires_is_asked_for_again(archive: Path, server: FileServer, digest: str, target: Path) -> None:
    server.fault = lambda handler, number: handler.answer(307, Location=f"{other.url}/{number}")
    with serving(archive.read_bytes(), "127.0.0.2") as other:
        other.fault = lambda handler, number: number == 3 and handler.answer(403)
        assert start(settings(server, digest, target)).returncode == 0
        assert len({path for path, _ in other.requests}) >= 2


def test_no_password_no_signature_is_seen(server: FileServer, digest: str, target: Path, tmp_path: Path) -> None:
    url = f"{server.url.replace('//', '//user:SECRET1@')}/files/a?signature=SECRET2#sha256={digest}"
    files = {"UNPACKENV_LOG_FILE": tmp_path / "log", "UNPACKENV_TRACE": tmp_path / "trace"}
    env = settings(server, digest, target, UNPACKENV_ARCHIVE=url, **files)
    done = start(env)
    assert done.returncode == 0
    shutil.rmtree(target)
    server.fault = lambda handler, number: handler.answer(403)
    failed = start(env)
    assert failed.returncode == 125
    assert f"{server.url}/files/a: the server refuses it (403" in failed.stderr
    written = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert not [text for text in (*written, done.stderr.encode(), failed.stderr.encode()) if b"SECRET" in text]


# --- what is asked for ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://127.0.0.1/a", "a remote archive needs its digest. Add #sha256=DIGEST to the URL"),
        ("http://127.0.0.1/a#sha256=12", "'12' is not a sha256 in hex"),
        ("http://127.0.0.1/a#md5=12", "'md5=12' is no #sha256=DIGEST"),
        ("http://192.0.2.1/a#sha256=" + "0" * 64, "http:// is not encrypted"),
        (
            "ftp://192.0.2.1/a#sha256=" + "0" * 64,
            "an archive is fetched by one of https://, http://, oci://",
        ),
        ("https:///a#sha256=" + "0" * 64, "is no https:// or http:// with a server"),
        ("https://host:port/a#sha256=" + "0" * 64, "is no URL"),
    ],
)
def test_addresses_that_are_refused(target: Path, url: str, says: str) -> None:
    done = start(environment(UNPACKENV_ARCHIVE=url, UNPACKENV_TARGET=target))
    check_error(done, target, says)


def test_two_digests(server: FileServer, digest: str, target: Path) -> None:
    done = start(settings(server, digest, target, UNPACKENV_DIGEST="1" * 64))
    check_error(done, target, "UNPACKENV_DIGEST: is another digest than that of the URL")


def test_a_proxy(server: FileServer, digest: str, target: Path, sizes: dict[str, int]) -> None:
    env = settings(server, digest, target, UNPACKENV_INSECURE="yes", http_proxy=server.url, NO_PROXY="")
    env["UNPACKENV_ARCHIVE"] = f"http://elsewhere.invalid/a?b#sha256={digest}"
    done = start(env)
    assert done.returncode == 0, done.stderr
    assert wrong_files(target, sizes) == []
    assert {path for path, _ in server.requests} == {"http://elsewhere.invalid/a?b"}


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate for 127.0.0.1, and its key, in one file."""
    return make_certificate(tmp_path)


def test_a_proxy_that_wants_a_password(server: FileServer, digest: str, target: Path) -> None:
    """It is told user and password; if it refuses them, no other attempt is made, and nobody sees them."""
    said = f"Basic {base64.b64encode(b'user:SECRET').decode()}"
    server.fault = lambda handler, number: handler.headers.get("Proxy-Authorization") != said and handler.answer(407)
    env = settings(server, digest, target, UNPACKENV_INSECURE="yes", NO_PROXY="")
    env["UNPACKENV_ARCHIVE"] = f"http://elsewhere.invalid/a#sha256={digest}"
    env["http_proxy"] = server.url.replace("//", "//user:SECRET2@")
    done = start(env)
    check_error(done, target, "http://elsewhere.invalid/a: the proxy refuses it (407")
    assert ("SECRET" in done.stderr, len(server.requests)) == (False, 1)
    env["http_proxy"] = server.url.replace("//", "//user:SECRET@")
    assert start(env).returncode == 0


def test_a_proxy_that_lets_nobody_through(server: FileServer, digest: str, target: Path) -> None:
    with tunneling() as proxy:
        proxy.fault = lambda handler, number: handler.answer(407)
        env = settings(server, digest, target, NO_PROXY="", https_proxy=proxy.url.replace("//", "//user:SECRET@"))
        env["UNPACKENV_ARCHIVE"] = f"https://elsewhere.invalid/a#sha256={digest}"
        done = start(env)
        check_error(done, target, "https://elsewhere.invalid/a: the proxy refuses it (407")
        assert ("SECRET" in done.stderr, len(proxy.requests)) == (False, 1)


def test_a_proxy_of_another_kind(server: FileServer, digest: str, target: Path) -> None:
    env = settings(server, digest, target, NO_PROXY="", https_proxy="socks5://user:SECRET@127.0.0.1:1")
    env["UNPACKENV_ARCHIVE"] = f"https://elsewhere.invalid/a#sha256={digest}"
    done = start(env)
    check_error(done, target, "https_proxy: is no https:// or http:// with a server")
    assert "SECRET" not in done.stderr


def test_a_proxy_for_https(
    archive: Path, digest: str, target: Path, tmp_path: Path, certificate: Path, sizes: dict[str, int]
) -> None:
    with serving(archive.read_bytes(), certificate=certificate) as server, tunneling() as proxy:
        env = settings(server, digest, target, NO_PROXY="", SSL_CERT_FILE=tmp_path / "public.pem")
        env["UNPACKENV_ARCHIVE"] = env["UNPACKENV_ARCHIVE"].replace("http://", "https://")
        env["https_proxy"] = proxy.url.replace("http://", "http://user:SECRET@")
        done = start(env)
        assert done.returncode == 0, done.stderr
        assert wrong_files(target, sizes) == []
        said = f"Basic {base64.b64encode(b'user:SECRET').decode()}"
        assert {(path, headers.get("Proxy-Authorization")) for path, headers in proxy.requests} == {
            (f"127.0.0.1:{server.server_port}", said)
        }
        assert {headers.get("Proxy-Authorization") for _, headers in server.requests} == {None}


def test_never_from_https_to_http(archive: Path, digest: str, target: Path, tmp_path: Path, certificate: Path) -> None:
    with serving(archive.read_bytes(), certificate=certificate) as server, serving(archive.read_bytes()) as plain:
        server.fault = lambda handler, number: handler.answer(302, Location=f"{plain.url}/a")
        env = settings(server, digest, target, SSL_CERT_FILE=tmp_path / "public.pem", UNPACKENV_INSECURE="yes")
        env["UNPACKENV_ARCHIVE"] = env["UNPACKENV_ARCHIVE"].replace("http://", "https://")
        check_error(start(env), target, "leads from https:// to http://, which is refused")
        assert plain.requests == []


def test_https(archive: Path, digest: str, target: Path, tmp_path: Path, certificate: Path) -> None:
    with serving(archive.read_bytes(), certificate=certificate) as server:
        env = settings(server, digest, target)
        env["UNPACKENV_ARCHIVE"] = env["UNPACKENV_ARCHIVE"].replace("http://", "https://")
        check_error(start(env), target, "the server's certificate is not valid (self")
        done = start({**env, "SSL_CERT_FILE": str(tmp_path / "public.pem")})
        assert (done.returncode, done.stdout) == (0, "started\n"), done.stderr
