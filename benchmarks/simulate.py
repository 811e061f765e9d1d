"""`python -m speckv.benchmarks.simulate`: tokens per step in closed form, and the best γ under costs."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import typer

from speckv.benchmarks.common.command import JsonFile, make_app
from speckv.benchmarks.common.command import run as run_command
from speckv.controller.errors import SpecKVError
from speckv.controller.files import write_whole

app = make_app()

GUIDE_PRINTED = {
    "FP16": {1: 1.82, 2: 2.44, 4: 3.13, 8: 3.47},
    "INT8": {1: 1.78, 2: 2.31, 4: 2.84, 8: 3.03},
    "NF4": {1: 1.71, 2: 2.18, 4: 2.50, 8: 2.53},
}
"""Tokens per step by γ that the guide "Speculative Decoding Adaptive Gamma Speckv Guide 2026" prints."""

GUIDE_SCRIPT = {
    "FP16": {1: 0.82, 2: 0.80, 4: 0.74, 8: 0.65},
    "INT8": {1: 0.78, 2: 0.75, 4: 0.66, 8: 0.54},
    "NF4": {1: 0.71, 2: 0.67, 4: 0.55, 8: 0.40},
}
"""The acceptance rates in the guide's script. By its own formula they give the printed figures for γ = 1,
and for γ = 2 of FP16 and INT8; the other seven need the higher rates of ``implied_alpha``."""

GAMMAS = tuple(GUIDE_SCRIPT["FP16"])


@dataclass(frozen=True)
class Costs:
    """Milliseconds: t(γ) = ``verify_ms`` + γ · (``draft_ms`` + ``row_ms``).

    ``verify_ms`` is a target forward over one row, which is also one step of plain decoding; ``row_ms`` is
    what each further row adds to it; ``draft_ms`` is one draft forward.
    """

    draft_ms: float
    verify_ms: float
    row_ms: float = 0.0

    def __post_init__(self) -> None:
        for name in ("draft_ms", "verify_ms", "row_ms"):
            value = getattr(self, name)
            least = "at least 0" if name == "row_ms" else "above 0"
            if not math.isfinite(value) or value < 0 or (value == 0 and name != "row_ms"):
                raise SpecKVError(f"--{name.replace('_', '-')} {value:g}: give milliseconds {least}")

    def step_ms(self, gamma: int) -> float:
        """Time of one step that drafts ``gamma`` tokens."""
        return self.verify_ms + gamma * (self.draft_ms + self.row_ms)


RELEASED = {"FP16": Costs(10.5, 20.2), "INT8": Costs(10.4, 90.4), "NF4": Costs(10.6, 36.4)}
"""The released data's own costs (arXiv 2605.02888: an RTX 3090, a loop without KV cache), as the paper
command fits them; what a further row adds is within the cost of a drafted token."""


def expected_tokens(alpha: float, gamma: int) -> float:
    """E[tokens per step] = Σ_{k=0…γ} α^k = (1 − α^(γ+1)) / (1 − α) (Leviathan et al. 2023, arXiv 2211.17192).

    ``alpha`` is the probability, 0 … 1, that a drafted token is accepted given that those before it were, the
    same for every token. Raises SpecKVError for an ``alpha`` or ``gamma`` that is none.
    """
    if not 0 <= alpha <= 1:  # NaN as well
        raise SpecKVError(f"alpha {alpha:g} is not an acceptance rate; give one within 0 … 1")
    if gamma < 0:
        raise SpecKVError(f"gamma {gamma} is below 0; give the number of drafted tokens")
    if alpha in (0, 1):
        return 1.0 if alpha == 0 else gamma + 1.0
    # expm1 keeps the digits that 1 − α^(γ+1) loses where α is close to 1.
    return math.expm1((gamma + 1) * math.log(alpha)) / (alpha - 1)


def implied_alpha(tokens: float, gamma: int) -> float:
    """The α at which ``expected_tokens(α, gamma)`` is ``tokens``, by bisection (it rises with α).

    Raises SpecKVError for ``tokens`` outside 1 … γ + 1 or a ``gamma`` below 1.
    """
    if gamma < 1 or not 1 <= tokens <= gamma + 1:
        raise SpecKVError(f"{tokens:g} tokens per step: with gamma {gamma} it is within 1 … gamma + 1")
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if expected_tokens(middle, gamma) < tokens else (low, middle)
    return (low + high) / 2


@dataclass(frozen=True)
class Point:
    """One γ: tokens per step, milliseconds per step, tokens per second, and that against plain decoding."""

    gamma: int
    alpha: float
    tokens: float
    step_ms: float
    tokens_per_s: float
    speedup: float


def simulate(alphas: Mapping[int, float], costs: Costs) -> list[Point]:
    """A point for each γ of ``alphas`` (γ → acceptance rate), in that order."""
    points = []
    for gamma, alpha in alphas.items():
        tokens, step = expected_tokens(alpha, gamma), costs.step_ms(gamma)
        points.append(Point(gamma, alpha, tokens, step, 1e3 * tokens / step, tokens * costs.verify_ms / step))
    return points


def best(points: Sequence[Point]) -> dict[str, int]:
    """The γ with most tokens per step, and with most per second (0 where none beats plain decoding)."""
    fastest = max(points, key=lambda point: point.tokens_per_s)
    return {
        "tokens_per_step": max(points, key=lambda point: point.tokens).gamma,
        "tokens_per_s": fastest.gamma if fastest.speedup > 1 else 0,
    }


def _gammas(text: str) -> list[int]:
    try:
        gammas = sorted({int(part) for part in text.split(",")})
    except ValueError:
        raise SpecKVError(f"--gammas {text}: give whole numbers with commas, as 1,2,4,8") from None
    if gammas[0] < 0:
        raise SpecKVError(f"--gammas {text}: a number of drafted tokens cannot be below 0")
    return gammas


def scenarios(
    alphas: Sequence[float], gammas: str | None, given: Mapping[str, float | None]
) -> dict[str, tuple[dict[int, float], Costs]]:
    """What to simulate, by name: one constant α each, or without any the guide's table and the guide's rates.

    ``given`` are fields of Costs; those left None keep the released value of each compression.
    """
    asked = _gammas(gammas) if gammas is not None else list(GAMMAS)
    changed = {name: value for name, value in given.items() if value is not None}
    costs = {name: Costs(**{**asdict(released), **changed}) for name, released in RELEASED.items()}
    if alphas:
        if len(set(costs.values())) == 1:
            costs = {"given costs": next(iter(costs.values()))}
        return {
            f"α {alpha:g}, {name}": (dict.fromkeys(asked, alpha), cost)
            for alpha in alphas
            for name, cost in costs.items()
        }
    if missing := sorted(set(asked) - set(GAMMAS)):
        raise SpecKVError(f"--gammas {gammas}: the guide has no figure for γ {missing[0]}; give a rate by --alpha")
    chosen = {}
    for name, tokens in GUIDE_PRINTED.items():
        chosen[f"{name}, as printed"] = ({g: implied_alpha(tokens[g], g) for g in asked}, costs[name])
    for name, rates in GUIDE_SCRIPT.items():
        chosen[f"{name}, script's rates"] = ({g: rates[g] for g in asked}, costs[name])
    return chosen


@app.command()
def main_command(
    alpha: Annotated[list[float] | None, typer.Option(help="Acceptance rate of every token (repeatable).")] = None,
    gammas: Annotated[str | None, typer.Option(help="With commas; 1,2,4,8 when left out.")] = None,
    draft_ms: Annotated[float | None, typer.Option(help="One draft forward.")] = None,
    verify_ms: Annotated[float | None, typer.Option(help="One target forward over one row.")] = None,
    row_ms: Annotated[float | None, typer.Option(help="What each further row adds to it.")] = None,
    json_file: JsonFile = None,
) -> None:
    """Tokens per step in closed form and tokens per second under costs, for the guide's table or any rate."""
    given = {"draft_ms": draft_ms, "verify_ms": verify_ms, "row_ms": row_ms}
    chosen = scenarios(alpha or (), gammas, given)
    results: dict[str, Any] = {}
    for name, (alphas, costs) in chosen.items():
        points = simulate(alphas, costs)
        results[name] = {"costs": asdict(costs), "points": [asdict(p) for p in points], "best": best(points)}
    _show(results)
    if json_file is not None:
        write_whole(json_file, json.dumps(results, indent=1) + "\n")


def _show(results: Mapping[str, Any]) -> None:
    from speckv.benchmarks.common.tables import Table

    gammas = [f"γ={point['gamma']}" for point in next(iter(results.values()))["points"]]
    tokens = Table("Expected tokens per step, and the acceptance rate behind it", ("", *gammas, "best γ"))
    rates = Table("Tokens per second (against plain decoding)", ("", "t(γ), ms", *gammas, "best γ"))
    for name, result in results.items():
        costs, points = result["costs"], result["points"]
        lengths = (f"{p['tokens']:.2f} (α {p['alpha']:.3f})" for p in points)
        tokens.rows.append([name, *lengths, str(result["best"]["tokens_per_step"])])
        time = f"{costs['verify_ms']:g} + {costs['draft_ms'] + costs['row_ms']:g} γ"
        figures = (f"{p['tokens_per_s']:.1f} ({p['speedup']:.2f}×)" for p in points)
        fastest = result["best"]["tokens_per_s"]
        rates.rows.append([name, time, *figures, str(fastest) if fastest else "0 (plain)"])
    tokens.show()
    rates.show()


def main() -> None:
    """Run the command."""
    run_command(app)


if __name__ == "__main__":
    main()
