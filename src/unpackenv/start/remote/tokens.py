"""Tokens and credentials for the requests to a registry (OCI distribution specification, "token authentication")."""

from __future__ import annotations

import json
import re
from urllib.parse import urlencode

from unpackenv.errors import ArchiveUnreachable, SettingError
from unpackenv.start.remote import credentials
from unpackenv.start.remote.address import Address
from unpackenv.start.remote.ahead import new_lock
from unpackenv.start.remote.connections import Connections, basic
from unpackenv.start.remote.transport import Authorization, Purpose, Requests

TYPE_CHECKING = False
if TYPE_CHECKING:
    from unpackenv.start.remote.reference import Reference

PULL, PUSH = "pull", "pull,push"
"""What a token is to allow."""
_TOKENS = 2
"""How many tokens in a row a registry may refuse before its token service is asked no more."""
LIMIT = 4 << 20
"""How many bytes a manifest, or another answer of a registry that is no blob, may have."""
_PARAMETER = re.compile(r'(\w+)="([^"]*)"')


class RegistryAuthorization(Authorization):
    """The credentials of a registry, or a token that a token service gives for them.

    A registry says what it wants when it refuses the first request (distribution specification, "token
    authentication"). The token service has the credentials from then on: the registry names it.
    """

    def __init__(
        self, reference: Reference, timeout: float, insecure: bool, connections: Connections, actions: str = PULL
    ) -> None:
        self._reference = reference
        self._timeout = timeout
        self._insecure = insecure
        self._connections = connections
        self._actions = f"repository:{reference.repository}:"
        self._scope = self._actions + actions
        self._lock = new_lock()
        self._refused = 0
        self.value = ""
        self.hint = f"Check the credentials for {reference.registry}. {_LOGIN}"

    def header(self, address: Address) -> str:
        return self.value

    def note_taken(self) -> None:
        self._refused = 0

    def renew(self, challenge: str, refused: str) -> bool:
        with self._lock:
            if refused != self.value:  # another thread has renewed it meanwhile
                return True
            found = credentials.for_registry(self._reference.registry)
            self.hint = _hint(self._reference.registry, found)
            kind, _, rest = challenge.partition(" ")
            if kind.lower() == "bearer" and self._refused < _TOKENS:
                self._refused += 1
                self.value = f"Bearer {self._token(dict(_PARAMETER.findall(rest)), found)}"
            elif kind.lower() == "basic" and found.user:
                self.value = basic(found.user)
            return self.value != refused

    def _token(self, parameters: dict[str, str], found: credentials.Credentials) -> str:
        scope = parameters.get("scope", "")
        wanted = {name: parameters[name] for name in ("service",) if name in parameters}
        # One token for all that is going to be asked, and not one for each kind of request.
        wanted["scope"] = scope if scope and not scope.startswith(self._actions) else self._scope
        try:
            address = Address(parameters.get("realm", ""))
            address.check(self._insecure)
        except SettingError as error:
            raise ArchiveUnreachable(
                f"its registry names a token service that is refused: {error.what}", where=self._reference.shown
            ) from None
        address.user = found.user
        headers, method, body = {}, "GET", None
        if found.token:
            headers, method = {"Content-Type": "application/x-www-form-urlencoded"}, "POST"
            grant = {"grant_type": "refresh_token", "refresh_token": found.token, "client_id": "unpackenv"}
            body = urlencode({**grant, **wanted}).encode()
        else:
            address.target += ("&" if "?" in address.target else "?") + urlencode(wanted)
        own = Authorization()
        own.hint = self.hint
        requests = Requests(
            address,
            self._timeout,
            self._insecure,
            self._connections,
            authorization=own,
            purpose=Purpose("token service", absent="Check the name of the registry"),
            shown=self._reference.shown,
        )
        answer = requests.retried(lambda: requests.send(method, headers, body, LIMIT, (200,)).read(LIMIT))
        try:
            tokens = json.loads(answer)
            token: str = tokens.get("token") or tokens["access_token"]
        except (ValueError, KeyError, AttributeError):
            raise requests.refusal("the token service of its registry sent no token") from None
        return token


def _hint(registry: str, found: credentials.Credentials) -> str:
    """Say what to do if a registry refuses what was found."""
    if found.user or found.token:
        return f"Check the credentials for {registry} in {found.source}, and what they allow"
    return f"There are no credentials for {registry} in {found.source}. {_LOGIN}"


_LOGIN = "`docker login` writes some; DOCKER_CONFIG or DOCKER_AUTH_CONFIG name others"
