"""The recipes for archives elsewhere, but for those in containers: each runs as it stands, against its server here."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers import services, snippets
from helpers.documented import REMOTE_RECIPES, adapted, block
from helpers.file_server import make_certificate, serving, tunneling
from helpers.fills import family, kill, make_site, pack_site, wait_until_filled, wrong_files
from helpers.processes import PATHS, run
from rig.environment import environment
from rig.registry import free_port
from rig.sites import pack_tree, write_tree
from unpackenv.archive import trailer

# An application that looks at all of its files.
APP = "from helpers.fills import wrong_files\nprint(wrong_files({!r}, {!r}))\n"


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "tree"
    yield place
    kill(list(family(place)))


@pytest.fixture
def sizes(tmp_path: Path, target: Path) -> dict[str, int]:
    """The sizes of the files of an archive, `archives/app.tar.zst`; beside that, an application."""
    sizes = make_site(tmp_path / "site", 40)
    (tmp_path / "site/zzz").write_bytes(os.urandom(400_000))  # the end of the archive is not all of it
    (tmp_path / "archives").mkdir()
    pack_site(tmp_path / "archives/app.tar.zst", tmp_path / "site")
    (tmp_path / "app.py").write_text(APP.format(str(target), sizes))
    return sizes


def commands(folder: Path, text: str, target: Path, **variables: object) -> subprocess.CompletedProcess[str]:
    """Run lines of shell in a folder, as a user would."""
    env = environment(PATH=snippets.PATH, HOME=folder, UNPACKENV_TARGET=target, **variables)
    env["PYTHONPATH"] = os.pathsep.join([env["PYTHONPATH"], *PATHS])
    return run(["sh", "-e", "-c", text], env, cwd=folder)


def digest_in(folder: Path) -> str:
    return trailer.identify(str(folder / "archives/app.tar.zst")).digest


# --- nginx ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("fill", ["before", "behind", "on-demand"])
def test_nginx(tmp_path: Path, target: Path, sizes: dict[str, int], fill: str) -> None:
    both = make_certificate(tmp_path)
    here = f"127.0.0.1:{free_port()}"
    places = {"/etc/nginx/files.pem": both, "/etc/nginx/files.key": both, "/srv/archives": tmp_path / "archives"}
    site = adapted(block(REMOTE_RECIPES, "nginx", "server {"), {"443 ssl": f"{here} ssl", **places})
    text = adapted(block(REMOTE_RECIPES, "nginx", "export "), {"files.example": here, "DIGEST": digest_in(tmp_path)})
    (tmp_path / "nginx").mkdir()
    with services.nginx(site, tmp_path / "nginx") as asked:
        done = commands(
            tmp_path, text, target, UNPACKENV_FILL=fill, SSL_CERT_FILE=tmp_path / "public.pem", NO_PROXY="*"
        )
        assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr
        if fill == "behind":
            wait_until_filled(target)
        ranges = asked.read_text().splitlines()
    assert len(ranges) > 1
    assert [line for line in ranges if not re.fullmatch(r"206 bytes=\d*-\d+", line)] == []
    assert wrong_files(target, sizes) == []


def test_nginx_with_an_archive_that_is_all_end(tmp_path: Path, target: Path) -> None:
    """It is shorter than what is asked for first."""
    (tmp_path / "archives").mkdir()
    digest = pack_tree(tmp_path / "archives/app.tar.zst", write_tree(tmp_path / "site", {"module.py": "VALUE = 42\n"}))
    (tmp_path / "app.py").write_text("import module; print(module.VALUE)\n")
    here = f"127.0.0.1:{free_port()}"
    site = f"server {{ listen {here}; root {tmp_path}/archives; }}"
    (tmp_path / "nginx").mkdir()
    with services.nginx(site, tmp_path / "nginx") as asked:
        archive = f"http://{here}/app.tar.zst#sha256={digest}"
        line = "python -m unpackenv -- python app.py"
        done = commands(tmp_path, line, target, UNPACKENV_ARCHIVE=archive, NO_PROXY="*")
        assert (done.returncode, done.stdout) == (0, "42\n"), done.stderr
        (only,) = asked.read_text().splitlines()
    assert only.startswith("206 bytes=-")


# --- a proxy -------------------------------------------------------------------------------------


def test_a_proxy(tmp_path: Path, target: Path, sizes: dict[str, int]) -> None:
    """And a server that needs none."""
    both = make_certificate(tmp_path)
    data = (tmp_path / "archives/app.tar.zst").read_bytes()
    with serving(data, certificate=both) as server, tunneling() as proxy:
        text = adapted(
            block(REMOTE_RECIPES, "Behind a proxy", "export "),
            {"user:password@proxy.example:3128": f"user:SECRET@127.0.0.1:{proxy.server_port}"},
        )
        url = f"https://127.0.0.1:{server.server_port}/app.tar.zst#sha256={digest_in(tmp_path)}"
        started = f"{text}\npython -m unpackenv -- python app.py"
        variables = {"UNPACKENV_ARCHIVE": url, "SSL_CERT_FILE": tmp_path / "public.pem"}
        done = commands(tmp_path, started, target, **variables)
        assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr
        assert "SECRET" not in done.stderr
        before = len(proxy.requests)
        assert before > 0
        done = commands(tmp_path, adapted(started, {"registry.internal": "127.0.0.1"}), tmp_path / "other", **variables)
        assert "unpackenv: unpacked " in done.stderr
        assert len(proxy.requests) == before
