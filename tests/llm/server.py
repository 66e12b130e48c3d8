"""A server on the loopback address that speaks the OpenAI format, well or badly, as each test asks.

`Server` answers each request by the next of its behaviours, the last one for all further requests. A behaviour is a
function of the handler and the request's body.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Behaviour = Callable[[BaseHTTPRequestHandler, dict[str, Any]], None]
USAGE = {"prompt_tokens": 11, "completion_tokens": 3, "total_tokens": 14}


class Server:
    """`with Server(say("hello")) as server:` has an `address` and the `requests` so far, headers included."""

    def __init__(self, *behaviours: Behaviour) -> None:
        self.behaviours = list(behaviours)
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.released = threading.Event()  # set at the end: who answers slowly stops waiting
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            server: Any

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                number = len(outer.requests)
                outer.requests.append(body)
                outer.headers.append({name.lower(): value for name, value in self.headers.items()})
                outer.behaviours[min(number, len(outer.behaviours) - 1)](self, body)

            def log_message(self, *args: Any) -> None:
                """Say nothing."""

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self._http.outer = self  # type: ignore[attr-defined]
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._http.server_port}/v1"

    def __enter__(self) -> Server:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.released.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


def send(handler: BaseHTTPRequestHandler, text: str, status: int = 200, **headers: str) -> None:
    """Send a whole answer."""
    data = text.encode()
    handler.send_response(status)
    for name, value in {"content-type": "application/json", **headers}.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.send_header("content-length", str(len(data)))
    handler.end_headers()
    handler.wfile.write(data)


def completion(message: dict[str, Any], reason: str = "stop") -> str:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": reason}
    whole = {"id": "cmpl-1", "object": "chat.completion", "created": 1, "model": "tiny-1", "usage": USAGE}
    return json.dumps({**whole, "choices": [choice]})


def say(text: str) -> Behaviour:
    """Answer with text; as a stream where one is wanted, word by word."""

    def behave(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        if body.get("stream"):
            stream(handler, [{"content": word} for word in text.split(" ")])
        else:
            send(handler, completion({"content": text}))

    return behave


def call(name: str, arguments: dict[str, Any] | str) -> Behaviour:
    """Answer with a call of a tool."""
    written = arguments if isinstance(arguments, str) else json.dumps(arguments)

    def behave(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        function = {"id": "call_abc", "type": "function", "function": {"name": name, "arguments": written}}
        send(handler, completion({"content": None, "tool_calls": [function]}, "tool_calls"))

    return behave


def stream(handler: BaseHTTPRequestHandler, deltas: list[dict[str, Any]], complete: bool = True) -> None:
    """Send server-sent events; without an end if it is not to be complete."""
    handler.send_response(200)
    handler.send_header("content-type", "text/event-stream")
    handler.send_header("transfer-encoding", "chunked")
    handler.end_headers()
    base = {"id": "cmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "tiny-1"}
    chunks = [{**base, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    if complete:
        chunks.append({**base, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": USAGE})
    lines = [f"data: {json.dumps(chunk)}\n\n" for chunk in chunks] + ["data: [DONE]\n\n"] * complete
    for line in lines:
        handler.wfile.write(f"{len(line):x}\r\n{line}\r\n".encode())
        handler.wfile.flush()
    if complete:
        handler.wfile.write(b"0\r\n\r\n")
    else:
        handler.close_connection = True


def status(code: int, message: str = "no", **headers: str) -> Behaviour:
    """Answer with an error in the OpenAI format."""
    text = json.dumps({"error": {"message": message, "type": "error", "code": None}})
    return lambda handler, body: send(handler, text, code, **headers)


def raw(text: str, **headers: str) -> Behaviour:
    """Answer 200 with any text."""
    return lambda handler, body: send(handler, text, **headers)


def cut(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
    """Promise more than is sent, and hang up."""
    if body.get("stream"):
        return stream(handler, [{"content": "Once upon"}], complete=False)
    handler.send_response(200)
    handler.send_header("content-type", "application/json")
    handler.send_header("content-length", "5000")
    handler.end_headers()
    handler.wfile.write(b'{"id": "cmpl-1", "choi')
    handler.close_connection = True
    return None


def hang_up(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
    """Begin a stream that ends with the connection, as in HTTP/1.0, and hang up in the middle of it."""
    chunk = {"id": "cmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "tiny-1"}
    choice = {"index": 0, "delta": {"content": "Once upon"}, "finish_reason": None}
    handler.send_response(200)
    handler.send_header("content-type", "text/event-stream")
    handler.send_header("connection", "close")
    handler.end_headers()
    handler.wfile.write(f"data: {json.dumps({**chunk, 'choices': [choice]})}\n\n".encode())


def hang(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
    """Send nothing as long as the server lives."""
    handler.server.outer.released.wait(20)  # type: ignore[attr-defined]
    handler.close_connection = True


def stall(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
    """Begin a stream, and never go on."""
    handler.wfile.flush()
    stream(handler, [{"content": "Once upon"}], complete=False)
    hang(handler, body)
