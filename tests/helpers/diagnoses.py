"""What `unpackenv doctor` finds, and how a start ends that has the same settings."""

from __future__ import annotations

import base64
import json
import subprocess
from typing import Any

from helpers.processes import run, wrapper
from rig.environment import environment


def check_secrets(text: str) -> None:
    """See that no password is in a text, which is SECRET in every test, nor in the form that a request has it in."""
    users = (base64.b64encode(f"{user}:SECRET".encode()).decode() for user in ("user", "somebody"))
    assert not [secret for secret in ("SECRET", *users) if secret in text]


class Diagnosis:
    """The doctor's output and exit code; no password is ever in it."""

    def __init__(self, done: subprocess.CompletedProcess[str]) -> None:
        assert done.stderr == "", done.stderr
        check_secrets(done.stdout)
        self.returncode = done.returncode
        self.found: dict[str, Any] = json.loads(done.stdout)

    def of(self, topic: str, level: str = "") -> list[dict[str, Any]]:
        return [one for one in self.found["findings"] if one["topic"] == topic and level in ("", one["level"])]

    def only(self, topic: str, level: str = "") -> dict[str, Any]:
        (one,) = self.of(topic, level)
        return dict(one)

    @property
    def problems(self) -> list[str]:
        """The reason codes of what makes a start fail."""
        return [one["reason"] for one in self.found["findings"] if one["level"] == "problem"]


def doctor(*arguments: object, **variables: object) -> Diagnosis:
    return Diagnosis(run(wrapper("doctor", "--json", *arguments), environment(**variables)))


def start(*arguments: object, **variables: object) -> str:
    """Start for real; return the reason code of the failure, or "" if it succeeds."""
    done = run(wrapper("--log", "json", *arguments, "--", "true"), environment(**variables))
    check_secrets(done.stdout + done.stderr)
    line = json.loads(done.stderr.splitlines()[-1])
    assert (done.returncode == 125) == (line["unpackenv"] == "error")
    return str(line.get("reason", ""))
