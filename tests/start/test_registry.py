"""Archives in registries: credentials, tokens, where blobs lead to, and manifests that are not what they should be."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from helpers.file_server import FileServer, listening, serving
from helpers.fills import ON_DEMAND, Running, pack_site, wait_until_filled, wrong_files
from helpers.processes import run, wrapper
from helpers.registries import (
    HTPASSWD,
    PASSWORD,
    USER,
    Key,
    Pretended,
    TokenService,
    basic,
    check_there,
    docker_config,
)
from rig import registry
from rig.environment import environment
from rig.sites import write_tree
from unpackenv.archive import trailer
from unpackenv.errors import SettingError
from unpackenv.start.remote import credentials
from unpackenv.start.remote.connections import Connections
from unpackenv.start.remote.reference import Reference
from unpackenv.start.remote.tokens import RegistryAuthorization

pytestmark = pytest.mark.usefixtures("no_fill_left")

TRIED = 4  # seconds; enough for some attempts
REPOSITORY = "team/app"


@pytest.fixture(scope="session")
def made(large: tuple[Path, dict[str, int]]) -> tuple[Path, dict[str, int]]:
    return large


@pytest.fixture
def archive(made: tuple[Path, dict[str, int]]) -> Path:
    return made[0]


@pytest.fixture
def env(tmp_path: Path, target: Path) -> dict[str, str]:
    own = {"DOCKER_CONFIG": tmp_path / "docker", "UNPACKENV_FETCH_TIMEOUT": TRIED, "UNPACKENV_TARGET": target}
    return environment(**own, NO_PROXY="*")


def push(env: dict[str, str], archive: Path, address: str) -> str:
    """Push an archive to a registry; return the reference for a start."""
    done = run(wrapper("push", archive, f"oci://{address}/{REPOSITORY}:1"), env)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1].partition("=")[2]


def start(env: dict[str, str], reference: str) -> subprocess.CompletedProcess[str]:
    return run(wrapper("--archive", reference, "--", "echo", "started"), env)


def check_started(env: dict[str, str], reference: str, sizes: dict[str, int]) -> None:
    done = start(env, reference)
    assert (done.returncode, done.stdout) == (0, "started\n"), done.stderr
    assert wrong_files(env["UNPACKENV_TARGET"], sizes) == []


def error_of(done: subprocess.CompletedProcess[str]) -> str:
    """Return what a start has said that ended with an error, in one line."""
    assert (done.returncode, done.stdout) == (125, "")
    (line,) = done.stderr.splitlines()
    return line


# --- with a manifest that is pinned --------------------------------------------------------------


def test_a_start_that_finds_its_tree_asks_the_network_nothing(
    archive: Path, sizes: dict[str, int], env: dict[str, str]
) -> None:
    check_there()
    with registry.running() as address:
        reference = push(env, archive, address)
        check_started(env, reference, sizes)
    done = start(env, reference)
    assert (done.returncode, done.stdout) == (0, "started\n")
    assert "unpackenv: reused " in done.stderr
    bare = reference.replace(":1@", "@")
    assert "unpackenv: reused " in start(env, bare).stderr, "the digest counts, and not the tag"


def test_a_tag_may_have_moved_on(archive: Path, sizes: dict[str, int], env: dict[str, str], tmp_path: Path) -> None:
    check_there()
    pack_site(tmp_path / "new.tar.zst", write_tree(tmp_path / "new", {"new.py": ""}))
    with registry.running() as address:
        reference = push(env, archive, address)
        assert push(env, tmp_path / "new.tar.zst", address) != reference
        check_started(env, reference, sizes)


@pytest.fixture
def pretended(archive: Path, env: dict[str, str]) -> Iterator[Pretended]:
    """A registry that has the archive; `reference` is where."""
    with listening(Pretended()) as server:
        server.reference = push(env, archive, server.address)
        del server.requests[:]
        yield server


def test_a_manifest_that_does_not_have_its_digest(pretended: Any, env: dict[str, str], target: Path) -> None:
    digest = pretended.reference.partition("@")[2]
    pretended.manifests[digest] = pretended.manifests[digest].replace(b" ", b"  ", 1)
    says = f"{pretended.reference}: the registry sent a manifest that does not have the digest {digest}"
    assert says in error_of(start(env, pretended.reference))
    assert not target.exists()


def test_an_index_that_names_another_manifest(pretended: Any, env: dict[str, str], target: Path) -> None:
    digest = pretended.reference.partition("@")[2]
    index = json.dumps({"manifests": [{"digest": digest, "annotations": {}}]}).encode()
    name = f"sha256:{sha256(index).hexdigest()}"
    pretended.manifests.update({name: index, digest: b"{}"})
    says = f"the registry sent a manifest that does not have the digest {digest}"
    assert says in error_of(start(env, pretended.reference.replace(digest, name)))
    assert not target.exists()


@pytest.mark.parametrize(
    ("manifest", "says"),
    [
        (b"<html>", "the registry sent a manifest that cannot be read"),
        (b'{"layers": [{"digest": "sha256:../../etc"}]}', "the registry sent a manifest that cannot be read"),
        (b'{"layers": 1}', "the registry sent a manifest that cannot be read"),
        (b'{"layers": []}', "there is no archive among its 0 layers. Push one: unpackenv push"),
        (b'{"manifests": []}', "only for nothing. Push one for this platform"),
    ],
)
def test_manifests_of_other_things(
    pretended: Any, env: dict[str, str], archive: Path, manifest: bytes, says: str
) -> None:
    pretended.manifests["other"] = manifest
    digest = trailer.identify(str(archive)).digest
    reference = f"oci://{pretended.address}/{REPOSITORY}:other#sha256={digest}"
    assert says in error_of(start(env, reference))


def test_a_blob_that_is_something_else(pretended: Any, env: dict[str, str], archive: Path, target: Path) -> None:
    (name,) = (name for name, data in pretended.blobs.items() if len(data) > 2)
    data = bytearray(pretended.blobs[name])
    data[1000] ^= 1
    pretended.blobs[name] = bytes(data)
    assert "is damaged" in error_of(start(env, pretended.reference))
    assert not target.exists()


# --- references ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("docker.io/app:1", "https://registry-1.docker.io/v2/library/app/manifests/1"),
        ("docker.io/team/app", "https://registry-1.docker.io/v2/team/app/manifests/latest"),
        ("index.docker.io/app:1", "https://registry-1.docker.io/v2/library/app/manifests/1"),
        ("ghcr.io/app:1", "https://ghcr.io/v2/app/manifests/1"),
        ("localhost:5000/a/b/c:x", "http://localhost:5000/v2/a/b/c/manifests/x"),
        (f"ghcr.io/app:1@sha256:{'a' * 64}", f"https://ghcr.io/v2/app/manifests/sha256:{'a' * 64}"),
    ],
)
def test_where_a_reference_leads(text: str, place: str) -> None:
    reference = Reference(f"oci://{text}")
    found = reference.at("manifests", reference.name)
    assert found.origin + found.target == place


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("registry.example:port/app:1", "is no URL"),
        ("registry.example/app:1@sha256:12", "'sha256:12' is no digest, which is sha256: and 64 digits"),
        ("registry.example/app:a b", "'a b' is no tag"),
        ("app:1", "is no reference to a registry ('' is no repository)"),
    ],
)
def test_what_leads_nowhere(text: str, says: str) -> None:
    with pytest.raises(SettingError) as caught:
        Reference(f"oci://{text}")
    assert str(caught.value).startswith(f"UNPACKENV_ARCHIVE: {says}")


# --- credentials ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory, made: tuple[Path, dict[str, int]]) -> Iterator[str]:
    """A reference to the archive, in a registry that wants a password."""
    check_there()
    file = tmp_path_factory.mktemp("closed") / "htpasswd"
    file.write_text(HTPASSWD)
    with registry.running(auth={"htpasswd": {"realm": "registry", "path": str(file)}}) as address:
        env = environment(DOCKER_AUTH_CONFIG=docker_config(address), NO_PROXY="*")
        yield push(env, made[0], address)


def address_of(reference: str) -> str:
    return reference.split("/")[2]


def helper(folder: Path, name: str, script: str) -> str:
    """Make a credential helper; return the PATH that has it."""
    write_tree(folder / "bin", {f"docker-credential-{name}": f"#!/bin/sh\n{script}\n"})
    (folder / f"bin/docker-credential-{name}").chmod(0o755)
    return f"{folder}/bin:{os.defpath}"


SAYS = """test "$1" = get && test "$(cat)" = ADDRESS && echo '{"Username": "USER", "Secret": "PASSWORD"}'"""


@pytest.mark.parametrize("where", ["variable", "file", "plain", "other name", "helper", "helper for all"])
def test_where_credentials_are(
    closed: str, sizes: dict[str, int], env: dict[str, str], tmp_path: Path, where: str
) -> None:
    address = address_of(closed)
    script = SAYS.replace("ADDRESS", address).replace("USER", USER).replace("PASSWORD", PASSWORD)
    env["PATH"] = helper(tmp_path, "test", script)
    written: dict[str, dict[str, Any]] = {
        "variable": {"auths": {address: {"auth": basic()}}},
        "file": {"auths": {address: {"auth": basic()}}},
        "plain": {"auths": {address: {"username": USER, "password": PASSWORD}}},
        "other name": {"auths": {f"https://{address}/v1/": {"auth": basic()}}},
        "helper": {"credHelpers": {address: "test"}, "credsStore": "none"},
        "helper for all": {"auths": {address: {}}, "credsStore": "test"},
    }
    text = json.dumps(written[where])
    if where == "variable":
        env["DOCKER_AUTH_CONFIG"] = text
    else:
        write_tree(tmp_path / "docker", {"config.json": text})
    check_started(env, closed, sizes)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "DOCKER_AUTH_CONFIG: is no configuration of Docker: the credentials in it cannot be read"),
        ('{"auths": {"ADDRESS": {"auth": "SECRET"}}}', "DOCKER_AUTH_CONFIG: is no configuration of Docker"),
        ('{"auths": {"ADDRESS": "SECRET"}}', "DOCKER_AUTH_CONFIG: is no configuration of Docker"),
        ('{"credsStore": "absent"}', "its credential helper docker-credential-absent does not work (No such file"),
        ('{"credsStore": "knows-none"}', "There are no credentials for ADDRESS in docker-credential-knows-none. "),
        ('{"credsStore": "babbles"}', "DOCKER_AUTH_CONFIG: is no configuration of Docker"),
        (
            '{"auths": {"elsewhere": {"auth": "SECRET"}}}',
            "There are no credentials for ADDRESS in DOCKER_AUTH_CONFIG. ",
        ),
        (
            '{"auths": {"ADDRESS": {"auth": "dXNlcjpTRUNSRVQ="}}}',
            "Check the credentials for ADDRESS in DOCKER_AUTH_CON",
        ),
    ],
)
def test_credentials_that_do_not_work(closed: str, env: dict[str, str], tmp_path: Path, text: str, says: str) -> None:
    address = address_of(closed)
    helper(tmp_path, "knows-none", "echo credentials not found; exit 1")
    env["PATH"] = helper(tmp_path, "babbles", "echo SECRET")
    line = error_of(start({**env, "DOCKER_AUTH_CONFIG": text.replace("ADDRESS", address)}, closed))
    assert says.replace("ADDRESS", address) in line
    assert "SECRET" not in line


@pytest.mark.parametrize("name", ["docker.io", "index.docker.io", "https://index.docker.io/v1/"])
@pytest.mark.parametrize("host", ["docker.io", "registry-1.docker.io"])
def test_docker_hub_has_many_names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, host: str) -> None:
    monkeypatch.setenv("DOCKER_AUTH_CONFIG", json.dumps({"auths": {name: {"auth": basic()}}}))
    assert credentials.for_registry(host).user == f"{USER}:{PASSWORD}"
    script = """test "$(cat)" = https://index.docker.io/v1/ && echo '{"Username": "<token>", "Secret": "identity"}'"""
    monkeypatch.setenv("PATH", helper(tmp_path, "test", script))
    monkeypatch.setenv("DOCKER_AUTH_CONFIG", json.dumps({"credHelpers": {name: "test"}}))
    assert credentials.for_registry(host).token == "identity"


# --- tokens --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Key:
    return Key(tmp_path_factory.mktemp("tokens") / "key")


@pytest.fixture
def tokens(key: Key) -> Iterator[TokenService]:
    check_there()
    with listening(TokenService(key)) as service:
        yield service


@pytest.mark.parametrize("auth", [{"auth": basic()}, {"auth": basic(USER, ""), "identitytoken": "identity"}])
def test_tokens_are_for_what_is_pulled(
    archive: Path, sizes: dict[str, int], env: dict[str, str], tokens: TokenService, auth: dict[str, str]
) -> None:
    with registry.running(auth=tokens.auth) as address:
        env["DOCKER_AUTH_CONFIG"] = json.dumps({"auths": {address: auth}})
        reference = push(env, archive, address)
        del tokens.requests[:]
        check_started(env, reference, sizes)
        asked = [tuple(asked[name] for name in ("service", "scope")) for _, _, asked in tokens.requests]
        assert asked == [("registry", f"repository:{REPOSITORY}:pull")], "one token, for all processes of the start"
        done = start({**env, "DOCKER_AUTH_CONFIG": "{}", "UNPACKENV_TARGET": f"{env['UNPACKENV_TARGET']}2"}, reference)
        assert f"the server refuses it (401 Unauthorized). There are no credentials for {address}" in error_of(done)


def test_a_token_that_has_expired_is_not_the_last_word(
    archive: Path, sizes: dict[str, int], env: dict[str, str], tokens: TokenService
) -> None:
    with registry.running(auth=tokens.auth) as address:
        env["DOCKER_AUTH_CONFIG"] = docker_config(address)
        reference = push(env, archive, address)
        tokens.expired = 1
        check_started(env, reference, sizes)
        del tokens.requests[:]
        tokens.expired = 1000
        done = start({**env, "UNPACKENV_TARGET": f"{env['UNPACKENV_TARGET']}2"}, reference)
        assert "the server refuses it (401 Unauthorized" in error_of(done)
        assert len(tokens.requests) == 2


def test_a_token_is_renewed_while_the_application_runs(
    archive: Path, sizes: dict[str, int], env: dict[str, str], target: Path, tokens: TokenService, tmp_path: Path
) -> None:
    """A registry that knows another key takes no token of before, as if it had expired."""
    with registry.running(tmp_path / "data", auth=tokens.auth) as address:
        env["DOCKER_AUTH_CONFIG"] = docker_config(address)
        reference = push(env, archive, address)
        variables = {name: env[name] for name in ("DOCKER_AUTH_CONFIG", "NO_PROXY")}
        app = Running(reference, target, ON_DEMAND, **variables)
        assert app.outcome == "named"
    tokens.key = Key(tmp_path / "key")
    del tokens.requests[:]
    path = "large/spans.bin"
    with registry.running(tmp_path / "data", int(address.partition(":")[2]), auth=tokens.auth):
        assert app.process.stdin
        app.process.stdin.write(f"assert len(open({str(target / path)!r}, 'rb').read()) == {sizes[path]}\n")
        app.end()
        assert app.process.returncode == 0
        assert tokens.requests
        wait_until_filled(target)
    assert wrong_files(target, {path: sizes[path]}) == []


@pytest.fixture
def authorization(monkeypatch: pytest.MonkeyPatch) -> RegistryAuthorization:
    monkeypatch.setenv("DOCKER_AUTH_CONFIG", docker_config("127.0.0.1:1"))
    return RegistryAuthorization(Reference(f"oci://127.0.0.1:1/{REPOSITORY}:1"), TRIED, False, Connections())


def test_of_several_threads_one_renews(authorization: RegistryAuthorization, tokens: TokenService) -> None:
    challenge = f'Bearer realm="{tokens.realm}",service="registry"'
    assert authorization.renew(challenge, "")
    first = authorization.value
    assert authorization.renew(challenge, "")  # what another thread was told before
    assert authorization.value == first
    assert len(tokens.requests) == 1


def test_tokens_are_renewed_as_long_as_they_are_taken(
    authorization: RegistryAuthorization, tokens: TokenService
) -> None:
    challenge = f'Bearer realm="{tokens.realm}",service="registry"'
    for _ in range(4):
        assert authorization.renew(challenge, authorization.value)
        authorization.note_taken()
    assert [authorization.renew(challenge, authorization.value) for _ in range(3)] == [True, True, False]


@pytest.mark.parametrize(
    ("realm", "says"),
    [
        ("", "its registry names a token service that is refused: is no https:// or http:// with a server"),
        ("http://192.0.2.1/token", "its registry names a token service that is refused: http:// is not encrypted"),
    ],
)
def test_token_services_that_are_refused(pretended: Any, env: dict[str, str], realm: str, says: str) -> None:
    wants = {"WWW_Authenticate": f'Bearer realm="{realm}"'}
    pretended.fault = lambda handler, number: handler.answer(401, **wants)
    env["DOCKER_AUTH_CONFIG"] = docker_config(pretended.address)
    assert says in error_of(start(env, pretended.reference))


# --- where blobs lead to -------------------------------------------------------------------------


@pytest.fixture
def elsewhere(archive: Path) -> Iterator[FileServer]:
    """A server that has the blobs of a registry."""
    with serving(archive.read_bytes(), "127.0.0.2") as server:
        yield server


def leads_to(server: FileServer) -> dict[str, object]:
    """Return the section of a registry's configuration that has it lead to another server for blobs."""
    return {"storage": [{"name": "redirect", "options": {"baseurl": server.url}}]}


def test_where_a_blob_is_gets_no_credentials(
    archive: Path, sizes: dict[str, int], env: dict[str, str], tokens: TokenService, elsewhere: FileServer
) -> None:
    with registry.running(auth=tokens.auth, middleware=leads_to(elsewhere)) as address:
        env["DOCKER_AUTH_CONFIG"] = docker_config(address)
        reference = push(env, archive, address)
        check_started(env, reference, sizes)
        assert {headers.get("Authorization") for _, headers in elsewhere.requests} == {None}
        assert len(elsewhere.requests) > 1


def test_where_a_blob_is_is_not_asked_for_credentials(
    archive: Path, env: dict[str, str], tokens: TokenService, elsewhere: FileServer, key: Key
) -> None:
    """It could name a token service of its own, and get the password there."""
    with listening(TokenService(key)) as evil, registry.running(
        auth=tokens.auth, middleware=leads_to(elsewhere)
    ) as address:  # fmt: skip
        env["DOCKER_AUTH_CONFIG"] = docker_config(address)
        reference = push(env, archive, address)
        wants = {"WWW_Authenticate": f'Bearer realm="{evil.realm}",service="registry"'}
        elsewhere.fault = lambda handler, number: handler.answer(401, **wants)
        assert "the server answers 401" in error_of(start({**env, "UNPACKENV_FETCH_TIMEOUT": "1"}, reference))
        assert evil.requests == []
