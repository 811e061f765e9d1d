"""Run a plan, keeping what is measured in a journal, and put the result together."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Collection, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from speckv.benchmarks.bench.plan import KIND, SERVERS, VERSION, Entry, Measure, Plan, Unit, batches, joined
from speckv.benchmarks.bench.rows import agreement, judge, means
from speckv.benchmarks.common.journal import Journal
from speckv.benchmarks.common.machine import machine, versions
from speckv.benchmarks.common.progress import Report
from speckv.controller.files import write_whole

TRANSFORMERS = "transformers"


def _of(module: str) -> Measure:
    """The ``measure`` of a module beside this one, which is imported, with what it needs, when it is called."""

    def measure(plan: Plan, done: Collection[str], report: Report) -> Iterator[Unit]:
        yield from import_module(f"speckv.benchmarks.bench.{module}").measure(plan, done, report)

    return measure


FRAMEWORKS: dict[str, Measure] = {
    TRANSFORMERS: _of("in_transformers"),
    "sglang": _of("in_sglang"),
    SERVERS: _of("at_url"),
}
"""A framework is a module with a ``measure`` and a line here."""


def run(plan: Plan, out: Path | None, command: str, report: Report) -> dict[str, Any]:
    """Measure what ``out``'s journal (``….partial.jsonl``) does not hold yet; write ``out`` and return its content.

    Every finished unit of work is in the journal before the next begins, so an interrupted run goes on where it was,
    and more prompts, policies or compressions are added to what was measured. The journal is deleted only by you.
    """
    plan.check(FRAMEWORKS)
    setting = plan.setting("" if plan.servers else _digest(plan.controller))
    journal = Journal(out.with_suffix(".partial.jsonl")) if out else None
    units = [unit for unit in (journal.read() if journal else []) if unit["setting"] == setting]
    done = {unit["key"] for unit in units}
    now = revision()
    for framework in plan.frameworks:
        for made in FRAMEWORKS[framework](plan, done, report):
            units.append({"setting": setting, "key": made.key, "entries": made.entries, "facts": made.facts})
            units[-1]["revision"] = now
            if journal:
                journal.append(units[-1])
    entries = [entry for unit in units for entry in unit["entries"] if _asked(plan, entry)]
    # As they are asked for, not as they came into the journal: the tables follow.
    entries.sort(key=lambda entry: (plan.frameworks.index(entry["framework"]), plan.regimes.index(entry["regime"])))
    result: dict[str, Any] = {"kind": KIND, "version": VERSION, "command": command, "revision": now}
    result["revisions"] = sorted({unit.get("revision") or "unknown" for unit in units})  # of a journal gone on with
    result |= {"machine": machine(), "versions": versions(), "settings": {**setting, "repeats": plan.repeats}}
    result["settings"]["prompts"] = len(plan.prompts)
    result["machine"] |= (
        {"note": "the servers run elsewhere; these are facts of the machine that asked"} if plan.servers else {}
    )
    result |= {"costs": {}, "skipped": []}
    for unit in units:
        result["costs"] |= {name: of for name, of in unit["facts"].get("costs", {}).items() if name in plan.regimes}
        result["skipped"] += [one for one in unit["facts"].get("skipped", []) if one[1] in plan.regimes]
    rows = judge(entries, plan.against)
    result |= {"rows": rows, "means": means(rows, entries), "agreement": agreement(entries)}
    result |= {"bound": [], "entries": entries}
    if out is not None:
        store(result, out)
    return result


def store(result: dict[str, Any], out: Path) -> None:
    """Write ``result`` to ``out``: a line per row and entry, so that two versions can be compared."""
    lines = []
    for key, value in result.items():
        inner = ",\n  ".join(json.dumps(one, ensure_ascii=False) for one in value) if isinstance(value, list) else None
        text = f"[\n  {inner}\n ]" if inner else json.dumps(value, ensure_ascii=False)
        lines.append(f" {json.dumps(key)}: {text}")
    write_whole(out, "{\n" + ",\n".join(lines) + "\n}\n")


def revision() -> str | None:
    """The git revision of the folder one is in, with + where it has changes; None elsewhere."""
    try:
        said = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--abbrev=12"], capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return said.stdout.strip() or None


def _digest(controller: str) -> str:
    from speckv.integrations.runtime import Controller  # which servers elsewhere can do without

    return Controller.load(controller).artefact.sha256


def _asked(plan: Plan, entry: Entry) -> bool:
    sizes = plan.batches if entry["framework"] == TRANSFORMERS else plan.concurrencies
    at_once = entry["concurrency"] if entry["framework"] == TRANSFORMERS else 1
    return (
        entry["framework"] in plan.frameworks
        and entry["regime"] in plan.regimes
        and entry["policy"] in plan.policies
        and entry["repeat"] < plan.repeats
        and entry["prompt_id"] in {joined(prompts) for prompts in batches(plan.prompts, at_once)}
        and entry["concurrency"] in sizes
    )
