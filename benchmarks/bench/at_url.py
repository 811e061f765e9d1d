"""Servers that run somewhere already, behind a router too, each asked for the same prompts over the OpenAI API."""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

from speckv.benchmarks.bench.chat_api import KEY, ChatServer
from speckv.benchmarks.bench.plan import AS_SERVED, PLAIN, SERVERS, Entry, Plan, Unit, share_wall
from speckv.benchmarks.common.progress import Report
from speckv.benchmarks.prompts import Prompt
from speckv.controller.errors import SpecKVError

NAME = re.compile(r"[\w.:\[\]-]{1,40}")


def served(urls: Sequence[str], prompts: tuple[Prompt, ...], api_key: str = "", model: str = "", **more: Any) -> Plan:
    """The plan that measures the servers at ``urls``, "URL" or "NAME=URL" each; ``more`` is the plan's own.

    Every server is asked which model it has (``model``, where it has several). SpecKVError where one cannot be
    measured.
    """
    if not all("!" <= character <= "~" for character in api_key):
        raise SpecKVError(f"the key in {KEY}: no spaces, line ends or letters outside ASCII; copy it anew")
    servers = named(urls)
    most = max(more.get("concurrencies", (1,)))
    if most > len(prompts):
        raise SpecKVError(f"concurrency {most}: there are only {len(prompts)} prompts; give --count {most} or more")
    models = {name: ChatServer(url, api_key).served(model) for name, url in servers.items()}
    more |= {"frameworks": (SERVERS,), "regimes": (AS_SERVED,), "policies": tuple(servers)}
    pair = ", ".join(dict.fromkeys(models.values()))
    return Plan(prompts, pair=pair, servers=servers, models=models, api_key=api_key, **more)


def named(urls: Sequence[str]) -> dict[str, str]:
    """The addresses by name; without one it is the address' host and port."""
    found: dict[str, str] = {}
    for given in urls:
        name, equals, url = given.partition("=")
        own = bool(equals) and "://" not in name  # else the = is the address'
        url = checked(url if own else given)
        name = name if own else urlsplit(url).netloc
        if not NAME.fullmatch(name):
            raise SpecKVError(f"--url {given}: a name is of up to 40 letters, digits and . : _ -; give another")
        if name in found:
            raise SpecKVError(f"--url: {name} is there twice; give each a name of its own, as in NAME={url}")
        found[name] = url
    if PLAIN in found and next(iter(found)) != PLAIN:
        raise SpecKVError(f"--url: the others are compared with the first; give {PLAIN}={found[PLAIN]} first")
    return found


def checked(url: str) -> str:
    """``url`` without what follows from ``/v1`` on; SpecKVError where it is no address of a server."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and parts.hostname and url.isprintable() and " " not in url
        good = good and (parts.port is None or parts.port > 0) and not parts.query and not parts.fragment
    except ValueError:
        good = False
    if not good:
        raise SpecKVError(f"--url {url}: not an address; give it as http://host:30000")
    if parts.username is not None:
        raise SpecKVError(f"--url: no user and password in an address, which is stored; give a key with {KEY}")
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/').removesuffix('/v1').rstrip('/')}"


def measure(plan: Plan, done: Collection[str], report: Report) -> Iterator[Unit]:
    """A unit per repetition, concurrency and server: all prompts once, so many at a time, one server after the other.

    Every other repetition goes through the servers in reverse. Before anything is timed each server answers all
    prompts once: its prefix cache, which the API cannot empty, then holds them in every pass and every server alike.
    """
    work = [
        (repeat, size, name)
        for repeat in range(plan.repeats)
        for size in plan.concurrencies
        for name in (reversed(plan.servers) if repeat % 2 else plan.servers)
    ]
    todo = [one for one in work if _key(*one) not in done]
    requests, before = len(work) * len(plan.prompts), len(work) - len(todo)
    report(SERVERS, before * len(plan.prompts), requests)
    asked = {name: ChatServer(url, plan.api_key, plan.models[name]) for name, url in plan.servers.items()}
    for name in dict.fromkeys(name for *_, name in todo):
        for count, _ in enumerate(_answers(plan, asked[name], max(plan.concurrencies)), start=1):
            report(f"{name}, warm-up", count, len(plan.prompts))
    for number, (repeat, size, name) in enumerate(todo, start=before):
        entries: list[Entry] = []
        started = time.perf_counter()
        for entry in _answers(plan, asked[name], size):
            about = {"framework": SERVERS, "regime": AS_SERVED, "policy": name, "concurrency": size, "repeat": repeat}
            entries.append(about | entry)
            report(SERVERS, number * len(plan.prompts) + len(entries), requests)
        share_wall(entries, 1e3 * (time.perf_counter() - started))
        if not any(entry["tokens"] for entry in entries):
            raise SpecKVError(f"{plan.servers[name]}: wrote nothing to any prompt; see whether its model chats")
        yield Unit(_key(repeat, size, name), entries)


def _answers(plan: Plan, server: ChatServer, size: int) -> Iterator[Entry]:
    """What is stored of every prompt's answer, ``size`` asked for at a time, in the prompts' order."""

    def one(prompt: Prompt) -> Entry:
        answer = server.answer(prompt.text, plan.tokens, plan.temperature)
        made: Entry = {"prompt_id": prompt.id, "task": prompt.task, "tokens": answer.tokens, "ms": answer.ms}
        made |= {"arrivals_ms": answer.arrivals_ms, "output": answer.text, "counted": answer.counted}
        return made | {"gammas": []}

    with ThreadPoolExecutor(size) as pool:
        yield from pool.map(one, plan.prompts)


def _key(repeat: int, size: int, name: str) -> str:
    return f"{SERVERS}/{repeat}/{size}/{name}"
