"""Archives in an object store, from a server that speaks the protocol of S3: by s3fs, and by a presigned URL."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from helpers import documented, services, snippets
from helpers.documented import REMOTE_RECIPES, adapted, block
from helpers.fills import wait_until_filled, wrong_files
from helpers.processes import PATHS, python, result_of, run, wrapper
from helpers.services import BUCKET, KEY, Store
from helpers.starts import SOCKETS_REPLACED, boot_code
from rig.environment import PATIENCE, environment
from rig.sites import write_tree
from unpackenv.archive import trailer

pytestmark = [pytest.mark.xdist_group("stores"), pytest.mark.usefixtures("no_fill_left")]

URL = f"s3://{BUCKET}/{KEY}"
LIBRARIES = ("aiobotocore", "aiohttp", "asyncio", "botocore", "fsspec", "s3fs")
# What an application sees: the outcome, wrong files, and what is left of the library, in modules and threads.
SEEN = """import os, sys
from helpers.fills import wrong_files
wrong = wrong_files({target!r}, {sizes!r})
left = [name for name in {libraries!r} if name in sys.modules]
result = [report.outcome, wrong, left, len(os.listdir("/proc/self/task"))]
"""


@pytest.fixture(scope="session")
def made(large: tuple[Path, dict[str, int]]) -> tuple[Path, dict[str, int]]:
    return large


@pytest.fixture(scope="module")
def store(made: tuple[Path, dict[str, int]], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with services.store(made[0], tmp_path_factory.mktemp("store")) as running:
        yield running


@pytest.fixture
def digest(made: tuple[Path, dict[str, int]]) -> str:
    return trailer.identify(str(made[0])).digest


def settings(store: Store, archive: str, target: Path, **more: object) -> dict[str, str]:
    """Return the environment of a start as the reader."""
    store.check_users(True)
    key, secret = store.reader
    own = {
        "UNPACKENV_ARCHIVE": archive,
        "UNPACKENV_TARGET": target,
        "UNPACKENV_FETCH_TIMEOUT": PATIENCE,
        "AWS_ENDPOINT_URL": store.url,
        "AWS_ACCESS_KEY_ID": key,
        "AWS_SECRET_ACCESS_KEY": secret,
    }
    return services.with_packages(**{**own, **more})


def seen(target: Path, sizes: dict[str, int], env: dict[str, str], before: str = "") -> Any:
    """Start an application that runs the code `before` first; return what it sees (`SEEN`)."""
    rest = SEEN.format(target=str(target), sizes=sizes, libraries=LIBRARIES)
    return result_of(before + boot_code(rest=rest), {**env, "PYTHONPATH": os.pathsep.join([env["PYTHONPATH"], *PATHS])})


def refused(done: subprocess.CompletedProcess[str], store: Store) -> str:
    """Return the only line of a start that ended with an error; it has none of the secrets."""
    assert (done.returncode, done.stdout) == (125, ""), done.stderr
    (line,) = done.stderr.splitlines()
    assert not [secret for secret in (store.reader[1], store.other[1], "SECRET") if secret in line]
    return line


# --- by its own library --------------------------------------------------------------------------


@pytest.mark.parametrize("fill", ["before", "behind", "on-demand"])
def test_a_start(store: Store, digest: str, target: Path, sizes: dict[str, int], fill: str) -> None:
    """The application has nothing of the library afterwards, and no thread."""
    env = settings(store, f"{URL}#sha256={digest}", target, UNPACKENV_FILL=fill)
    assert seen(target, sizes, env) == ["unpacked" if fill == "before" else "named", [], [], 1]
    if fill == "behind":
        wait_until_filled(target)
        assert wrong_files(target, sizes) == []


def test_an_application_with_threads(store: Store, digest: str, target: Path, sizes: dict[str, int]) -> None:
    """It has fetched by itself: its own library is another one, perhaps of another version."""
    thread = "import threading, time; threading.Thread(target=time.sleep, args=(600,), daemon=True).start()\n"
    env = settings(store, f"{URL}#sha256={digest}", target)
    assert seen(target, sizes, env, thread)[:3] == ["unpacked", [], ["asyncio"]]  # that of the interpreter


@pytest.mark.parametrize("replaced", SOCKETS_REPLACED)
def test_an_application_that_has_replaced_sockets(
    store: Store, digest: str, target: Path, sizes: dict[str, int], replaced: str
) -> None:
    env = settings(store, f"{URL}#sha256={digest}", target, UNPACKENV_WORKERS=1)
    outcome, wrong, _, _ = seen(target, sizes, env, SOCKETS_REPLACED[replaced] + "\n")
    assert (outcome, wrong) == ("unpacked", [])


def test_commands_that_read(store: Store, digest: str, target: Path) -> None:
    env = settings(store, "", target)
    done = run(wrapper("verify", f"{URL}#sha256={digest}"), env)
    assert (done.stdout, done.stderr) == (f"{URL}: sound\n", "")
    done = run(wrapper("inspect", f"{URL}#sha256={digest}"), env)
    assert done.stdout.startswith(f"{URL}\n  digest {digest}\n"), done.stderr


# --- what goes wrong -----------------------------------------------------------------------------

WRONG = {
    "not allowed": ({}, URL, "the object store refuses it (403)"),
    "wrong secret": ({"AWS_SECRET_ACCESS_KEY": "SECRET"}, URL, "the object store refuses it (403)"),
    "no credentials": (
        {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, URL, "cannot be fetched (NoCredentialsError)"
    ),
    "no such key": ({}, f"s3://{BUCKET}/nothing", "there is no archive. Check the URL"),
    "no such bucket": ({}, "s3://nobody/nothing", "there is no archive. Check the URL"),
    "a folder": ({}, "s3://bucket/environments", "is a folder, and no archive"),
    "credentials in the URL": ({}, f"s3://user:SECRET@{BUCKET}/{KEY}", "cannot be fetched (ParamValidationError)"),
    "nobody listens": (
        {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "UNPACKENV_FETCH_TIMEOUT": 2},
        URL,
        "cannot be fetched within 2 s (",
    ),
    "no endpoint": ({"AWS_ENDPOINT_URL": "nonsense"}, URL, "cannot be fetched (ValueError)"),
    "another archive": ({}, f"{URL}#sha256={'0' * 64}", f"but {'0' * 64} is required"),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_said_in_one_line(store: Store, digest: str, target: Path, what: str) -> None:
    variables, url, says = WRONG[what]
    if what == "not allowed":
        variables = dict(zip(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), store.other))
    archive = url if "#" in url else f"{url}#sha256={digest}"
    env = settings(store, archive, target, **variables)
    store.check_users(what in ("not allowed", "wrong secret"))
    assert says in refused(run(wrapper("--", "true"), env), store)
    assert not target.exists()


@pytest.mark.parametrize("missing", ["fsspec", "s3fs"])
def test_without_its_library(store: Store, digest: str, target: Path, tmp_path: Path, missing: str) -> None:
    write_tree(tmp_path / "without", {f"{missing}.py": f"raise ModuleNotFoundError('No module named {missing}')\n"})
    env = settings(store, f"{URL}#sha256={digest}", target)
    env["PYTHONPATH"] = os.pathsep.join([str(tmp_path / "without"), env["PYTHONPATH"]])
    line = refused(run(wrapper("--", "true"), env), store)
    assert "archives by s3:// need s3fs (" in line
    assert "pip install 'unpackenv[s3]'" in line


# --- recipes -------------------------------------------------------------------------------------

HEADING = "S3, and stores that speak its protocol"


def test_the_recipe(store: Store, digest: str, target: Path, tmp_path: Path) -> None:
    text = adapted(
        block(REMOTE_RECIPES, HEADING, "export "), {"bucket/app.tar.zst": f"{BUCKET}/{KEY}", "DIGEST": digest}
    )
    (tmp_path / "app.py").write_text("import module; print(module.VALUE)\n")
    env = settings(store, "", target, PATH=snippets.PATH)
    done = run(["sh", "-e", "-c", text], env, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "42\n"), done.stderr


def test_a_presigned_url(store: Store, digest: str, target: Path, sizes: dict[str, int], tmp_path: Path) -> None:
    """It needs no library, and nobody sees its signature."""
    sign = adapted(documented.file(REMOTE_RECIPES, "sign.py"), {"app.tar.zst": KEY, "DIGEST": digest})
    printed = python(sign, settings(store, "", target))
    assert printed.returncode == 0, printed.stderr
    name, _, archive = printed.stdout.strip().partition("=")
    signature = archive.partition("?")[2].partition("#")[0]
    assert "Signature=" in signature
    store.check_users(False)
    env = environment(
        **{name: archive},
        UNPACKENV_TARGET=target,
        UNPACKENV_LOG_FILE=tmp_path / "log",
        UNPACKENV_TRACE=tmp_path / "trace",
        UNPACKENV_FETCH_TIMEOUT=PATIENCE,
        NO_PROXY="*",
    )
    done = [run(wrapper("--", "true"), env)]
    assert done[0].returncode == 0, done[0].stderr
    assert wrong_files(target, sizes) == []
    done += [run(wrapper(command, archive), env) for command in ("verify", "inspect")]
    done.append(python("import unpackenv; unpackenv.bootstrap()", env))
    assert [each.returncode for each in done] == [0, 0, 0, 0]
    shutil.rmtree(target)
    store.check_users(True)  # then it answers such a URL with 500
    done.append(run(wrapper("--", "true"), {**env, "UNPACKENV_FETCH_TIMEOUT": "1"}))
    assert f"{store.url}/{BUCKET}/{KEY}: cannot be fetched within 1 s" in done[-1].stderr
    said = [text for each in done for text in (each.stdout, each.stderr)]
    said += [path.read_bytes().decode(errors="replace") for path in tmp_path.rglob("*") if path.is_file()]
    secrets = [signature, *(part.partition("=")[2] for part in signature.split("&"))]
    assert not [text for text in said for secret in secrets if secret in text]
