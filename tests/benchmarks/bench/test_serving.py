"""Which of SGLang's servers runs when, with servers that only say what is done to them."""

from __future__ import annotations

from collections import Counter
from itertools import chain, product
from typing import Any

import pytest

from speckv.benchmarks.bench import in_sglang, serving
from speckv.benchmarks.bench.plan import Plan
from speckv.benchmarks.prompts import Prompt
from speckv.controller.errors import SpecKVError

POLICIES = ("plain", "fixed-2", "speckv")


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is done to servers, in order."""
    done: list[str] = []

    class Said:
        def __init__(self, plan: Plan, regime: str, policy: str, models: tuple[str, str], python: str) -> None:
            self.policy, self.server = policy, self

        def __enter__(self) -> Said:
            done.append(f"start {self.policy}")
            return self

        def __exit__(self, *_: object) -> None:
            done.append(f"end {self.policy}")

        def pause(self) -> None:
            done.append(f"pause {self.policy}")

        def resume(self) -> None:
            done.append(f"resume {self.policy}")

        def answer(self, prompts: list[tuple[Prompt, list[int]]], size: int) -> list[Any]:
            done.append(f"{self.policy} {size}")
            return [{"policy": self.policy, "size": size, "prompt": prompt.id} for prompt, _ in prompts]

    monkeypatch.setattr(serving, "Serving", Said)
    monkeypatch.setattr(in_sglang, "folders", lambda *_: ("target", "draft"))
    monkeypatch.setattr(in_sglang, "_ids", lambda _, prompts: [(prompt, []) for prompt in prompts])
    return done


PROMPTS = tuple(Prompt(str(number), "code", "text") for number in range(8))


def measured(**more: Any) -> list[str]:
    """The keys of the units, in which every policy has answered every prompt at every size, twice."""
    plan = Plan(
        PROMPTS, frameworks=("sglang",), policies=POLICIES, concurrencies=(1, 4), repeats=2, sglang_python="-", **more
    )
    units = list(in_sglang.measure(plan, (), lambda *_: None))
    answered = Counter(tuple(entry.values()) for unit in units for entry in unit.entries)
    assert answered == Counter(product(POLICIES, (1, 4), (prompt.id for prompt in PROMPTS), (0, 1)))
    return [unit.key for unit in units]


def test_one_server_after_the_other_in_mirrored_order(said: list[str]) -> None:
    keys = measured()
    assert len(set(keys)) == 12
    one = [["start", f"{policy} 1", f"{policy} 4", "end"] for policy in (*POLICIES, *POLICIES[::-1])]
    assert [word.split()[0] if word.startswith(("start", "end")) else word for word in said] == list(chain(*one))


def test_a_fresh_server_for_every_figure(said: list[str]) -> None:
    measured(fresh=True)
    assert sum(word.startswith("start") for word in said) == sum(word.startswith("end") for word in said) == 12


def test_together_they_take_turns_and_one_runs_at_a_time(said: list[str]) -> None:
    assert len(set(measured(together=True))) == 30
    asleep: set[str] = set()
    running: set[str] = set()
    turns = []
    for word in said:
        what, which = word.split()
        if what in ("start", "resume"):
            assert not running and (what == "start") == (which not in asleep)
            running.add(which)
            asleep.discard(which)
        elif what == "pause":
            running.remove(which)
            asleep.add(which)
        elif what != "end":
            assert running == {what}
            turns.append((what, int(which)))
    there, back = ([(policy, 1) for policy in order] for order in (POLICIES, POLICIES[::-1]))
    all_at_once = [(policy, 4) for policy in POLICIES]
    assert turns == [*2 * [*there, *back], *all_at_once, *2 * [*back, *there], *all_at_once[::-1]]
    assert sorted(word for word in said if word.startswith("end")) == sorted(f"end {policy}" for policy in POLICIES)


def test_a_server_that_does_not_start_ends_the_others(said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    enter = serving.Serving.__enter__

    def fails(self: Any) -> Any:
        if self.policy == "speckv":
            raise SpecKVError("SGLang did not start")
        return enter(self)

    monkeypatch.setattr(serving.Serving, "__enter__", fails)
    with pytest.raises(SpecKVError, match="did not start"):
        measured(together=True)
    assert {"end plain", "end fixed-2"} <= set(said)


def test_kept_servers_are_not_fresh() -> None:
    with pytest.raises(SpecKVError, match="together"):
        Plan((), frameworks=("sglang",), fresh=True, together=True).check(("sglang",))
    for way in ("fresh", "together"):
        with pytest.raises(SpecKVError, match=f"{way}: servers are SGLang's; add --framework sglang"):
            Plan((), frameworks=("transformers",), **{way: True}).check(("transformers",))
