"""Credentials for registries, from where `docker login` and Kubernetes put them.

The format is that of Docker's configuration file: `auths` by registry, and the names of programs that hand out
credentials (`credHelpers`, `credsStore`).
"""

from __future__ import annotations

import json
import subprocess
from base64 import b64decode

from unpackenv.errors import ArchiveUnreachable
from unpackenv.unpatched import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_TOKEN_USER = "<token>"
_SECONDS = 30.0
CONTENT_VARIABLE, DIRECTORY_VARIABLE = "DOCKER_AUTH_CONFIG", "DOCKER_CONFIG"


class Credentials:
    """A `user` ("user:password"), or an identity `token` (OAuth2), or nothing; `source` says where they are from."""

    def __init__(self, user: str = "", token: str = "", source: str = "") -> None:
        self.user = user
        self.token = token
        self.source = source


def for_registry(host: str) -> Credentials:
    """Return the credentials for a registry, if there are any.

    The configuration is the content of DOCKER_AUTH_CONFIG, or `config.json` in DOCKER_CONFIG or `~/.docker`. Raises
    `ArchiveUnreachable` if it cannot be used; its content is never part of the message.
    """
    source, text = _configuration()
    try:
        configuration = json.loads(text or "{}")
        names = _names_of(host)
        helper = _first(configuration.get("credHelpers"), names) or configuration.get("credsStore", "")
        entry: dict[str, Any] = _first(configuration.get("auths"), names) or {}
        if helper and not entry.get("auth"):
            return _from_helper(helper, names[0], source)
        user = b64decode(entry.get("auth", "")).decode() or _user(entry.get("username", ""), entry.get("password", ""))
        return Credentials(user, entry.get("identitytoken", ""), source)
    except (ValueError, AttributeError, TypeError):
        raise ArchiveUnreachable(
            "is no configuration of Docker: the credentials in it cannot be read",
            where=source,
            hint="`docker login` writes one; a Secret of the type kubernetes.io/dockerconfigjson holds one",
        ) from None


def _configuration() -> tuple[str, str]:
    """Return where the configuration is, and its text; "" without any."""
    if os.environ.get(CONTENT_VARIABLE):
        return CONTENT_VARIABLE, os.environ[CONTENT_VARIABLE]
    directory = os.environ.get(DIRECTORY_VARIABLE) or os.path.expanduser("~/.docker")
    path = os.path.join(directory, "config.json")
    try:
        with open(path, encoding="utf-8") as file:
            return path, file.read()
    except (FileNotFoundError, NotADirectoryError):
        return path, ""
    except OSError as error:
        raise ArchiveUnreachable(
            f"cannot be read, and may hold credentials ({error.strerror})", where=path, hint="Check who may read it"
        ) from error


def _names_of(host: str) -> list[str]:
    """Return the names that a registry may have in the configuration."""
    hosts = DOCKER_HUB if host in DOCKER_HUB else (host,)
    names = [form.format(each) for each in hosts for form in ("{}", "https://{}", "https://{}/v1/", "https://{}/v2/")]
    return ["https://index.docker.io/v1/", *names] if host in DOCKER_HUB else names


DOCKER_HUB = ("docker.io", "index.docker.io", "registry-1.docker.io")


def _first(entries: dict[str, Any] | None, names: list[str]) -> Any:
    """Return the entry of the first name that has one."""
    return next(filter(None, map((entries or {}).get, names)), None)


def _user(name: str, password: str) -> str:
    return f"{name}:{password}" if name else ""


def _from_helper(helper: str, server: str, source: str) -> Credentials:
    """Ask a credential helper (docker-credential-helpers, protocol `get`)."""
    program = f"docker-credential-{helper}"
    try:
        done = subprocess.run(
            [program, "get"], input=server.encode(), capture_output=True, check=False, timeout=_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        why = getattr(error, "strerror", "") or f"no answer for {_SECONDS:g} s"
        raise ArchiveUnreachable(
            f"its credential helper {program} does not work ({why})",
            where=source,
            hint="Install it, or name another configuration with DOCKER_CONFIG",
        ) from None
    if done.returncode:  # it knows none: the registry may want none
        return Credentials(source=program)
    found = json.loads(done.stdout)
    name, secret = found.get("Username", ""), found.get("Secret", "")
    if name == _TOKEN_USER:
        return Credentials(token=secret, source=program)
    return Credentials(_user(name, secret), source=program)
