"""A server that speaks the chat completions protocol: it plays given answers, and keeps what it was
asked."""

import json
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self


@dataclass
class Answer:
    """`body`: JSON, unless it is bytes. `cut`: the connection ends before all of it is sent."""

    body: object
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: bool = False


def says(text: str | None, *calls: tuple[str, str, str], finish: str | None = None) -> Answer:
    """As a real one answers; `calls`: id, tool, arguments."""
    message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
    if calls:
        message["tool_calls"] = [
            {"id": one, "type": "function", "function": {"name": tool, "arguments": arguments}}
            for one, tool, arguments in calls
        ]
    finish = finish or ("tool_calls" if calls else "stop")
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish}
    usage = {"prompt_tokens": 9, "completion_tokens": 9, "total_tokens": 18}
    return Answer({"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "small",
                   "choices": [choice], "usage": usage})  # fmt: skip


def refuses(status: int, message: str, **headers: str) -> Answer:
    error = {"message": message, "type": "some_error", "code": None}
    return Answer({"error": error}, status, {k.replace("_", "-"): v for k, v in headers.items()})


class ModelServer:
    """A `with` ends it. Where the answers are at their end it answers 500."""

    def __init__(self, answers: Iterable[Answer]) -> None:
        self.asked: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self._answers = iter(answers)
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                server.asked.append({"path": self.path, **json.loads(body)})
                server.headers.append({name.lower(): value for name, value in self.headers.items()})
                answer = next(server._answers, refuses(500, "nothing more to say"))
                self._send(answer)

            def _send(self, answer: Answer) -> None:
                body = answer.body
                data = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(answer.status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data) + answer.cut))
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)
                self.close_connection = answer.cut

            def log_message(self, format: str, *args: Any) -> None:
                """Not on the test's stderr."""

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}/v1"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()
