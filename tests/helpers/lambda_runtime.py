"""A stand-in of the runtime API of AWS Lambda (2018-06-01), as its documentation describes it, on loopback.

GET  /2018-06-01/runtime/invocation/next           an event, or an end: a real one would freeze the function instead
POST /2018-06-01/runtime/invocation/{id}/response  what the function has returned
POST /2018-06-01/runtime/invocation/{id}/error     what it has raised
POST /2018-06-01/runtime/init/error                why it could not be loaded
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from helpers.file_server import listening

_ROOT = "/2018-06-01/runtime/"


class RuntimeApi(ThreadingHTTPServer):
    """Hands out `events`, one after the other; `said` is what came back: the end of each path, and the content."""

    daemon_threads = True

    def __init__(self, events: list[object]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.events = events
        self.given = 0
        self.said: list[tuple[str, Any]] = []

    @property
    def variables(self) -> dict[str, str]:
        """What Lambda sets in the environment of a function, as far as its client needs it."""
        return {
            "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{self.server_port}",
            "AWS_LAMBDA_FUNCTION_NAME": "function",
            "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "512",
            "LAMBDA_TASK_ROOT": "/var/task",
        }


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: RuntimeApi

    def do_GET(self) -> None:
        assert self.path == f"{_ROOT}invocation/next"
        if self.server.given == len(self.server.events):
            self._answer(403, {"errorMessage": "the stand-in has no more events", "errorType": "End"})
            return
        event = self.server.events[self.server.given]
        self.server.given += 1
        self._answer(
            200,
            event,
            Lambda_Runtime_Aws_Request_Id=f"request-{self.server.given}",
            Lambda_Runtime_Deadline_Ms=str(int(time.time() + 3600) * 1000),
            Lambda_Runtime_Invoked_Function_Arn="arn:aws:lambda:us-east-1:123456789012:function:function",
            Lambda_Runtime_Trace_Id="Root=1-0-0;Sampled=0",
        )

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.said.append((self.path.removeprefix(_ROOT), json.loads(content)))
        self._answer(202, {"status": "OK"})

    def _answer(self, status: int, content: object, **headers: str) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        own = {"Content-Type": "application/json", "Content-Length": str(len(data))}
        for name, value in {**own, **{name.replace("_", "-"): text for name, text in headers.items()}}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


@contextmanager
def runtime_api(*events: object) -> Iterator[RuntimeApi]:
    """Run it until the context ends."""
    with listening(RuntimeApi(list(events))) as server:
        yield server
