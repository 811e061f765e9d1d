"""A small server with the OpenAI API that streams at a known pace, or fails as it is told to."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

FIRST_S, NEXT_S = 0.04, 0.01


@dataclass
class Fake:
    """A server's behaviour, and what it was asked: the chat requests, and ``status`` where it only refuses.

    It writes a chunk of ``per_chunk`` tokens every ``NEXT_S``, the first after ``FIRST_S``; or just ``raw``, slowly.
    Asked for them as SGLang is, it tells ``meta_info`` with an answer that is not streamed, ``totals`` in a stream.
    """

    log: list[str]
    name: str = ""
    per_chunk: int = 1
    models: tuple[str, ...] = ("some/model",)
    usage: bool = True
    stream: bool = True
    odd: str = ""
    key: str = ""
    status: int = 0
    breaks_after: int = 10**9
    refuses_options: bool = False
    raw: bytes = b""
    meta_info: dict[str, Any] = field(default_factory=dict)
    totals: dict[str, Any] = field(default_factory=dict)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    url: str = ""


def handler(fake: Fake) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def say(self, status: int, content: Any) -> None:
            text = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Location", "http://elsewhere:1")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def refused(self) -> bool:
            if fake.key and self.headers["Authorization"] != f"Bearer {fake.key}":
                self.say(401, {"error": {"message": "no such key"}})
            elif fake.status:
                self.say(fake.status, {"error": {"message": "not\nnow"}})
            else:
                return False
            return True

        def do_GET(self) -> None:
            if not self.refused():
                self.say(200, {"data": [{"id": name} for name in fake.models]})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if fake.refuses_options and "stream_options" in body:
                return self.say(400, {"error": {"message": "stream_options: not known"}})
            fake.log.append(fake.name)
            fake.bodies.append(body)
            if self.refused():
                return None
            if not (fake.stream and body.get("stream")):
                choice = {"message": {"content": "all at once"}}
                told = {"meta_info": fake.meta_info} if fake.meta_info and body.get("return_meta_info") else {}
                return self.say(200, {"choices": [choice | told]})
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            if fake.raw:
                time.sleep(0.1)
                self.part(fake.raw)
                return self.part(b"")
            self.event({"choices": [{"delta": {"role": "assistant", "content": ""}}]})
            time.sleep(FIRST_S - NEXT_S)
            words = [f"w{number} " for number in range(body["max_tokens"])]
            if fake.odd and body["messages"][0]["content"] == fake.odd:
                words[-1] = "other "
            for start in range(0, len(words), fake.per_chunk):
                if len(fake.bodies) > fake.breaks_after and start:
                    self.close_connection = True
                    return None
                time.sleep(NEXT_S)
                self.event({"choices": [{"delta": {"content": "".join(words[start : start + fake.per_chunk])}}]})
            self.event({"choices": [{"delta": {}, "finish_reason": "length"}], "usage": None})
            if fake.totals and body.get("return_spec_tokens_details"):
                self.event({"choices": [], "sglext": {"spec_tokens_details": fake.totals}})
            if fake.usage and body.get("stream_options"):
                self.event({"choices": [], "usage": {"completion_tokens": len(words)}})
            self.part(b"data: [DONE]\n\n")
            return self.part(b"")

        def event(self, content: Any) -> None:
            self.part(b": a comment\n\ndata: " + json.dumps(content).encode() + b"\n\n")

        def part(self, content: bytes) -> None:
            self.wfile.write(b"%x\r\n%b\r\n" % (len(content), content))
            self.wfile.flush()

    return Handler


class Quiet(ThreadingHTTPServer):
    """Says nothing of clients that are gone before they have heard all."""

    request_queue_size = 64  # or a connection may wait a second to be let in

    def handle_error(self, *_: object) -> None:
        pass


@contextmanager
def starting() -> Iterator[Callable[..., Fake]]:
    """What starts fake servers, which share a log of who was asked, and all of which end with it."""
    log: list[str] = []
    running = []

    def start(**changed: Any) -> Fake:
        fake = Fake(log, **changed)
        server = Quiet(("127.0.0.1", 0), handler(fake))
        server.daemon_threads = True
        fake.url = f"http://127.0.0.1:{server.server_port}"
        running.append(server)
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return fake

    try:
        yield start
    finally:
        for server in running:
            server.shutdown()
            server.server_close()
