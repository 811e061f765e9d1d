"""A server that speaks the OpenAI API, wherever it runs: what it serves, and a streamed answer with its times."""

from __future__ import annotations

import http.client
import json
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from time import perf_counter
from typing import Annotated, Any
from urllib.parse import urlsplit

import msgspec

from speckv.controller.errors import SpecKVError

MODELS, CHAT = "/v1/models", "/v1/chat/completions"
CONNECT_S, SILENT_S = 10.0, 600.0
"""Seconds to wait for a connection, and for anything to be said on it."""

LONGEST = 200
"""Characters of what a server says of an error that are passed on."""

KEY = "--api-key or in OPENAI_API_KEY"
AGAIN = "run the same command again, which keeps what was measured"

Tokens = Annotated[int, msgspec.Meta(ge=0, le=1_000_000_000)]


class Delta(msgspec.Struct):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None


class Choice(msgspec.Struct):
    delta: Delta | None = None
    finish_reason: str | None = None


class Usage(msgspec.Struct):
    completion_tokens: Tokens | None = None


class Event(msgspec.Struct):
    """A streamed chunk, as far as it is read."""

    choices: list[Choice] = []
    usage: Usage | None = None
    error: Any = None


class Model(msgspec.Struct):
    id: str


class Models(msgspec.Struct):
    data: list[Model] | None = None


class RefusedError(SpecKVError):
    """The server answered with an HTTP ``status`` that is no answer, and ``said`` why."""

    def __init__(self, text: str, status: int, said: str) -> None:
        super().__init__(text)
        self.status, self.said = status, said


@dataclass(frozen=True)
class Answer:
    """``arrivals_ms`` has a time for each of ``tokens``, counted from the request, ``ms`` is when the answer ended.

    ``counted`` is "usage", or "chunks" where the server does not tell its tokens and its chunks were counted instead.
    """

    text: str
    tokens: int
    arrivals_ms: list[float]
    ms: float
    counted: str


class ChatServer:
    """A server at ``url``, which ``/v1`` follows, asked for ``model``.

    Every failure is a SpecKVError that names the URL and the remedy. It is asked directly, whatever proxies
    the environment names, and every request has a connection of its own that is open before the clock starts.
    """

    def __init__(self, url: str, key: str = "", model: str = "") -> None:
        self.url, self.key, self.model = url, key, model
        self.parts = urlsplit(self.url)
        self.tells_usage = True

    def served(self, wanted: str = "") -> str:
        """The name of the model that is served, or ``wanted`` where there are several and it is among them."""
        with self._ask(MODELS) as (answer, _):
            names = [model.id for model in self._decoded(answer.read(), Models, MODELS).data or []]
        if not names:
            raise SpecKVError(f"{self.url}: lists no model at {MODELS}; start it with one, or wait for it to load")
        if len(names) > 1 and wanted not in names:
            some = ", ".join(names[:5])[:LONGEST]
            raise SpecKVError(f"{self.url}: serves {len(names)} models ({some}); choose one with --model")
        return wanted if wanted in names else names[0]

    def answer(self, prompt: str, tokens: int, temperature: float) -> Answer:
        """The answer to ``prompt`` as a user's turn, of at most ``tokens`` tokens, as it streams in."""
        body: dict[str, Any] = {"model": self.model, "messages": [{"role": "user", "content": prompt}]}
        body |= {"max_tokens": tokens, "temperature": temperature, "top_p": 1.0, "stream": True}
        if not self.tells_usage:
            return self._stream(body)
        try:
            return self._stream(body | {"stream_options": {"include_usage": True}})
        except RefusedError as error:
            if error.status not in (400, 422) or "stream_options" not in error.said:
                raise
        self.tells_usage = False
        return self._stream(body)

    def _stream(self, body: dict[str, Any]) -> Answer:
        chunks: list[tuple[float, int]] = []
        texts: list[str] = []
        finish: tuple[float, str] | None = None
        told, events, done = None, 0, False
        with self._ask(CHAT, body) as (answer, started):
            for line in answer:
                at = 1e3 * (perf_counter() - started)
                if not line.startswith(b"data:"):
                    continue
                events += 1
                if done := line[5:].strip() == b"[DONE]":
                    break
                event = self._decoded(line[5:], Event, CHAT)
                if event.error is not None:
                    raise SpecKVError(f"{self.url}: failed while it answered ({_short(str(event.error))}); {AGAIN}")
                if event.usage and event.usage.completion_tokens is not None:
                    told = event.usage.completion_tokens
                for choice in event.choices[:1]:
                    delta = choice.delta or Delta()
                    if text := (delta.reasoning_content or delta.reasoning or "") + (delta.content or ""):
                        texts.append(text)
                        chunks.append((at, len(text)))
                    if choice.finish_reason:
                        finish = at, choice.finish_reason
            ms = 1e3 * (perf_counter() - started)
        if not events:
            raise SpecKVError(f"{self.url}: does not stream its answers, and only then is the time of a token known")
        if not (done or finish):
            raise SpecKVError(
                f"{self.url}: broke off after {len(chunks)} chunks of an answer; see its log, and {AGAIN}"
            )
        tokens = told or len(chunks)
        if finish and finish[1] == "stop" and tokens > len(chunks):
            chunks.append((finish[0], 0))  # the end of the text is a token that is not seen
        return Answer("".join(texts), tokens, arrivals(chunks, tokens), ms, "usage" if told == tokens else "chunks")

    @contextmanager
    def _ask(self, path: str, body: dict[str, Any] | None = None) -> Iterator[tuple[http.client.HTTPResponse, float]]:
        """The answer to a request (with a ``body``, a POST), and when it was sent."""
        headers = {"Accept": "text/event-stream" if body else "application/json", "Content-Type": "application/json"}
        headers |= {"Authorization": f"Bearer {self.key}"} if self.key else {}
        kind = http.client.HTTPSConnection if self.parts.scheme == "https" else http.client.HTTPConnection
        started = None
        link = kind(self.parts.hostname or "", self.parts.port, timeout=CONNECT_S)
        try:
            link.connect()
            link.sock.settimeout(SILENT_S if body else CONNECT_S)
            content = json.dumps(body).encode() if body else None
            started = perf_counter()
            link.request("POST" if body else "GET", self.parts.path + path, content, headers)
            answer = link.getresponse()
            if answer.status != 200:
                raise self._refused(path, answer)
            yield answer, started
        except TimeoutError:
            text = f"{self.url}: no answer in time at {path}; see whether it is up and not overloaded, and {AGAIN}"
            raise SpecKVError(text) from None
        except (OSError, http.client.IncompleteRead) as error:
            if started is not None:
                raise SpecKVError(f"{self.url}: broke off at {path} ({error}); see its log, and {AGAIN}") from None
            text = f"{self.url}: cannot be reached ({error}); mend the address or start the server, and {AGAIN}"
            raise SpecKVError(text) from None
        except (http.client.HTTPException, UnicodeError) as error:
            said = _short(str(error)) or type(error).__name__
            raise SpecKVError(f"{self.url}: no HTTP server answers there ({said}); mend the address") from None
        finally:
            link.close()

    def _refused(self, path: str, answer: http.client.HTTPResponse) -> RefusedError:
        said = _reason(answer.read(4096))
        status = answer.status
        text = f"{self.url}: {path} answers {status} ({said or answer.reason})"
        if status in (401, 403):
            text += f"; give the right key with {KEY}" if self.key else f"; give a key with {KEY}"
        elif 300 <= status < 400:
            text = f"{self.url}: leads elsewhere, to {_short(answer.getheader('Location') or '')}; give that address"
        elif status == 404 and path == MODELS:
            text += f"; give the address that is followed by {MODELS}, as in http://host:30000"
        elif status == 429 or status >= 500:
            text += f"; see its log, and {AGAIN}"
        else:
            text += "; see its log for what it wants"
        return RefusedError(text, status, said)

    def _decoded(self, content: bytes, kind: type[Any], path: str) -> Any:
        try:
            return msgspec.json.decode(content, type=kind)
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            text = f"{self.url}: what it says at {path} is not the OpenAI API's ({error}); mend the address"
            raise SpecKVError(text) from None


def arrivals(chunks: Sequence[tuple[float, int]], tokens: int) -> list[float]:
    """When each of ``tokens`` came, in ms, from the time and length in characters of each chunk.

    How many tokens a chunk holds is not told: each has one, and what is left is shared by length. A server that
    speculates sends the tokens of a round in one chunk, so they come at the same time, as its reader sees them.
    """
    if not chunks:
        return []
    chunks = chunks if len(chunks) <= tokens else [chunks[at * len(chunks) // tokens] for at in range(tokens)]
    times = [at for at, _ in chunks]
    ends = list(accumulate(length for _, length in chunks))
    more = tokens - len(chunks)
    times += [times[bisect_left(ends, (at + 0.5) * ends[-1] / more)] for at in range(more)]
    return [round(at, 1) for at in sorted(times)]


def _reason(content: bytes) -> str:
    """Why, from the body of a refusal: the message in it, where it is as OpenAI's API words one, else all of it."""
    try:
        found = json.loads(content)
        found = found.get("error", found)
        return _short(str(found if isinstance(found, str) else found.get("message") or found))
    except (ValueError, AttributeError, RecursionError):
        return _short(content.decode(errors="replace"))


def _short(text: str) -> str:
    return " ".join(text.split())[:LONGEST]
