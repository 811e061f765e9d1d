"""Servers that run somewhere already, behind a router too, each asked for the same prompts over the OpenAI API."""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import PurePath
from typing import Any
from urllib.parse import urlsplit

from speckv.benchmarks.bench.chat_api import KEY, ChatServer
from speckv.benchmarks.bench.plan import AS_SERVED, PLAIN, SERVERS, Entry, Plan, Unit, share_wall
from speckv.benchmarks.common.progress import Report
from speckv.benchmarks.prompts import Prompt
from speckv.controller.errors import SpecKVError

NAME = re.compile(r"[\w.:\[\]-]{1,40}")

FILLED = 2
"""So many times the requests at a time are asked in one go, or the pauses at its end would count for much."""


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
    # A server that was given no name for its model says the folder that it is in.
    pair = ", ".join(dict.fromkeys(PurePath(name).name if name[:1] == "/" else name for name in models.values()))
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
    """A unit per repetition, concurrency, part of the prompts and server, so many prompts of it at a time.

    The servers take turns at every part, and at every other one in reverse. Before anything is timed each answers all
    prompts once: its prefix cache, which the API cannot empty, then holds them in every pass and every server alike.
    """
    work = [
        (repeat, size, number, name)
        for repeat in range(plan.repeats)
        for size in plan.concurrencies
        for number in range(len(_parts(plan.prompts, size)))
        for name in (reversed(plan.servers) if (repeat + number) % 2 else plan.servers)
    ]
    todo = [one for one in work if _key(*one) not in done]
    asked = {name: ChatServer(url, plan.api_key, plan.models[name]) for name, url in plan.servers.items()}
    for name in dict.fromkeys(name for *_, name in todo):
        tokens = 0
        for count, entry in enumerate(_answers(plan, asked[name], plan.prompts, max(plan.concurrencies)), start=1):
            tokens += entry["tokens"]
            report(f"{name}, warm-up", count, len(plan.prompts))
        if not tokens:
            raise SpecKVError(f"{plan.servers[name]}: wrote nothing to any prompt; see whether its model chats")
    requests = plan.repeats * len(plan.concurrencies) * len(plan.servers) * len(plan.prompts)
    answered = requests - sum(len(_parts(plan.prompts, size)[number]) for _, size, number, _ in todo)
    report(SERVERS, answered, requests)
    for repeat, size, number, name in todo:
        entries: list[Entry] = []
        started = time.perf_counter()
        for entry in _answers(plan, asked[name], _parts(plan.prompts, size)[number], size):
            about = {"framework": SERVERS, "regime": AS_SERVED, "policy": name, "concurrency": size, "repeat": repeat}
            entries.append(about | entry)
            answered += 1
            report(SERVERS, answered, requests)
        share_wall(entries, 1e3 * (time.perf_counter() - started))
        yield Unit(_key(repeat, size, number, name), entries)


def _parts(prompts: Sequence[Prompt], size: int) -> list[Sequence[Prompt]]:
    """The parts of ``prompts`` at which the servers take turns: single ones, or FILLED times those asked at once.

    What else goes on meanwhile then falls on all servers alike, and shows in an interval over the prompts.
    """
    count = max(1, len(prompts) // (FILLED * size if size > 1 else 1))
    ends = [len(prompts) * at // count for at in range(count + 1)]
    return [prompts[start:end] for start, end in pairwise(ends)]


def _answers(plan: Plan, server: ChatServer, prompts: Sequence[Prompt], size: int) -> Iterator[Entry]:
    """What is stored of the answer to each of ``prompts``, ``size`` asked for at a time, in their order."""

    def one(prompt: Prompt) -> Entry:
        answer = server.answer(prompt.text, plan.tokens, plan.temperature)
        made: Entry = {"prompt_id": prompt.id, "task": prompt.task, "tokens": answer.tokens, "ms": answer.ms}
        made |= {"arrivals_ms": answer.arrivals_ms, "output": answer.text, "counted": answer.counted}
        return made | {"gammas": []}

    with ThreadPoolExecutor(size) as pool:
        yield from pool.map(one, prompts)


def _key(repeat: int, size: int, number: int, name: str) -> str:
    return f"{SERVERS}/{repeat}/{size}/{number}/{name}"
