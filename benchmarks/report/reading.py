"""A result file as typed and checked objects: whatever is damaged in it ends as one line, before anything is drawn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, NamedTuple, NoReturn

import msgspec

from speckv.benchmarks.bench.plan import KIND, OURS, PLAIN, VERSION
from speckv.controller.errors import SpecKVError

LARGEST = 1e12
Positive = Annotated[float, msgspec.Meta(gt=0, le=LARGEST)]
Natural = Annotated[float, msgspec.Meta(ge=0, le=LARGEST)]
Count = Annotated[int, msgspec.Meta(ge=0, le=1_000_000_000)]
Size = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
Depth = Annotated[int, msgspec.Meta(ge=1, le=64)]
Rows = Annotated[int, msgspec.Meta(ge=1, le=4096)]
Probability = Annotated[float, msgspec.Meta(ge=0, le=1)]


class Place(NamedTuple):
    """Where policies were compared with each other."""

    framework: str
    regime: str
    concurrency: int


class Row(msgspec.Struct, frozen=True):
    """What a policy reached on the prompts of a task; "all" is the task of the whole. See ``bench.rows.judge``.

    ``tau`` and ``mean_gamma`` are None where nothing is known of the rounds.
    """

    framework: str
    regime: str
    concurrency: Size
    policy: str
    task: str
    tokens_per_s: Positive
    vs_plain: Positive
    vs_best_fixed: Positive
    best_fixed: str
    ci: dict[str, tuple[Natural, Natural]]
    runs: Count
    identical: Count
    tau: Natural | None = None
    mean_gamma: Natural | None = None
    drafted: Count = 0
    accepted: Count = 0
    wasted: Count = 0
    siblings: Count = 0
    sibling_hits: Count = 0
    ttft_ms: Natural | None = None
    vs_fixed4: Positive | None = None
    vs_hf_default: Positive | None = None
    vs_sglang_adaptive: Positive | None = None
    itl_mean_ms: Natural | None = None
    itl_p50_ms: Natural | None = None
    itl_p95_ms: Natural | None = None

    @property
    def place(self) -> Place:
        return Place(self.framework, self.regime, self.concurrency)

    def single(self, key: str) -> bool:
        """Whether a ratio rests on one prompt, whose resamples are all itself: its interval then says nothing."""
        low, high = self.interval(key)
        return high - low < 1e-9 and high != 1  # sums of different resamples round differently

    def interval(self, key: str) -> tuple[float, float]:
        """The 95 % interval of a ratio; the ratio itself where the file has none."""
        low, high = self.ci.get(key) or (getattr(self, key), getattr(self, key))
        return min(low, high), max(low, high)


class Step(NamedTuple):
    """A round of one text. ``siblings`` were verified; ``levels`` were drafted, where that is more than γ."""

    gamma: Count
    accepted: Count
    draft_ms: Natural
    verify_ms: Natural
    siblings: Count = 0
    sibling_hit: bool = False
    levels: Count = 0

    @property
    def drafted(self) -> int:
        return max(self.gamma, self.levels)


class Entry(msgspec.Struct, frozen=True):
    """One timed generation, as ``bench.plan`` describes it."""

    framework: str
    regime: str
    policy: str
    concurrency: Size
    prompt_id: str
    task: str
    gammas: list[Count]
    counted: str = "usage"
    siblings: dict[Depth, Count] = {}
    sibling_hits: dict[Depth, Count] = {}
    steps: list[Step] = []
    predicted: list[tuple[Probability, bool]] = []

    @property
    def place(self) -> Place:
        return Place(self.framework, self.regime, self.concurrency)


class PairCosts(msgspec.Struct, frozen=True):
    """Calibrated milliseconds of a draft token and of a verify by rows."""

    draft_ms: Positive
    verify_ms: Annotated[dict[Rows, Positive], msgspec.Meta(min_length=1)]


class Bound(msgspec.Struct, frozen=True):
    """Rates against plain decoding in one regime: measured, predicted by replay, and what no policy can exceed."""

    framework: str
    regime: str
    clairvoyant_vs_plain: Positive
    predicted_vs_plain: dict[str, Positive]
    measured_vs_plain: dict[str, Positive]


class Agreement(msgspec.Struct, frozen=True):
    """How far plain decoding of two frameworks agrees."""

    regime: str
    frameworks: tuple[str, str]
    prompts: Count
    identical: Count
    tokens_alike: Count
    tokens: Count


class Result(msgspec.Struct, frozen=True):
    """All of a result file that is shown."""

    rows: list[Row]
    entries: list[Entry]
    settings: dict[str, Any]
    machine: dict[str, Any]
    versions: dict[str, Any]
    command: str = ""
    revision: str | None = None
    revisions: list[str] = []
    costs: dict[str, PairCosts] = {}
    skipped: list[tuple[str, str, str]] = []
    agreement: list[Agreement] = []
    bound: list[Bound] = []

    @property
    def places(self) -> list[Place]:
        """In the order measured."""
        return list(dict.fromkeys(row.place for row in self.rows if row.task == "all"))

    def at(self, place: Place, task: str = "all") -> dict[str, Row]:
        """The rows of a place by policy."""
        return {row.policy: row for row in self.rows if row.place == place and row.task == task}

    def entries_at(self, place: Place, policy: str | None = None) -> list[Entry]:
        return [one for one in self.entries if one.place == place and policy in (None, one.policy)]

    def prompts_at(self, place: Place) -> int:
        return len({one.prompt_id for one in self.entries_at(place)})

    @property
    def servers(self) -> dict[str, str]:
        """Addresses by name, where servers that ran already were measured instead of policies; else empty."""
        found = self.settings.get("servers")
        return {str(name): str(url) for name, url in found.items()} if isinstance(found, dict) else {}

    @property
    def against(self) -> str:
        """The policy that the others are compared with: plain decoding, or the first of the servers."""
        return next(iter(self.servers), PLAIN)

    @property
    def named_against(self) -> str:
        """``against`` in a sentence."""
        return self.against if self.servers else "plain decoding"

    @property
    def pair(self) -> str:
        return str(self.settings.get("pair", ""))

    @property
    def greedy(self) -> bool:
        return not self.settings.get("temperature")


def read(path: Path) -> Result:
    """The result in ``path``; SpecKVError names the file, what is wrong with it and the remedy."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse)
    except FileNotFoundError:
        raise SpecKVError(f"{path}: no such file; write it with speckv bench {path}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise SpecKVError(f"{path}: cannot be read ({error}); give a file that speckv bench wrote") from None
    if not isinstance(content, dict) or (content.get("kind"), content.get("version")) != (KIND, VERSION):
        raise SpecKVError(f"{path}: not a result of this version of speckv bench; measure again")
    try:
        result = msgspec.convert(content, Result, str_keys=True)
    except (msgspec.ValidationError, RecursionError) as error:
        raise SpecKVError(f"{path}: damaged ({error}); run speckv bench again, its journal keeps the work") from None
    if not result.places:
        raise SpecKVError(f"{path}: nothing was measured in it; run speckv bench again")
    for place in result.places:
        if result.against not in (here := result.at(place)):
            where = f"{place.framework}, {place.regime}, concurrency {place.concurrency}"
            raise SpecKVError(
                f"{path}: {where}: no row of {result.named_against}, which all is compared with; measure it"
            )
        if OURS in here and "vs_plain" not in here[OURS].ci:
            raise SpecKVError(f"{path}: a row of {OURS} has no interval vs_plain; run speckv bench again")
    return result


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no measurement")
