"""What is asked of a server whatever drafts for it: the target's distribution, and aborts that disturb nobody."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import cache

from scipy.stats import chi2_contingency
from sglang_models import requests

from speckv.benchmarks.bench.sglang_server import Server

DRAWS = 1500
"""Enough to tell two distributions of 64 cells apart (p < 0.001, power 0.9) where 15 % of the mass has moved."""


MOST_DISTURBANCES = 200


def distribution(which: Server, temperature: float, **more: float) -> Counter[tuple[int, ...]]:
    """Three tokens out of the 4 likeliest each, drawn often."""
    sampling = {"temperature": temperature, "top_k": 4, "max_new_tokens": 3, "ignore_eos": True, **more}
    answers = which.post("/generate", input_ids=[[7, 8, 9, 10]] * DRAWS, sampling_params=sampling)
    return Counter(tuple(answer["output_ids"]) for answer in answers)


@cache
def drawn_plainly(plain: Server, temperature: float, min_p: float) -> Counter[tuple[int, ...]]:
    """The distribution of a server without speculation; drawn once for all that is compared with it."""
    return distribution(plain, temperature, min_p=min_p)


def alike(wanted: Counter[tuple[int, ...]], got: Counter[tuple[int, ...]]) -> float:
    """The probability that two samples of one distribution differ as much."""
    cells = sorted(set(wanted) | set(got), key=lambda cell: -(wanted[cell] + got[cell]))
    common = [cell for cell in cells if wanted[cell] + got[cell] >= 10]
    rest = [cell for cell in cells if wanted[cell] + got[cell] < 10]
    table = [[counts[cell] for cell in common] + [sum(counts[cell] for cell in rest)] for counts in (wanted, got)]
    if not sum(row[-1] for row in table):
        table = [row[:-1] for row in table]
    assert len(table[0]) > 4
    return float(chi2_contingency(table).pvalue)


def undisturbed_by_aborts(plain: Server, server: Server) -> None:
    """Aborts in the middle of others' rounds leave these alone: they are answered as by ``plain``."""
    several = requests(24, seed=6)
    wanted = plain.all(several)
    stop = threading.Event()

    def disturb() -> int:
        """Until the others are answered and two aborts were in time; a text that was faster just ends."""
        aborted = 0
        for number in range(MOST_DISTURBANCES):
            if stop.is_set() and aborted >= 2:
                break
            events = server.stream(
                "/generate",
                rid=f"doomed-{number}-",  # SGLang aborts whatever begins with the id
                input_ids=[9, number % 200 + 3, 11],
                sampling_params={"temperature": 0, "max_new_tokens": 480, "ignore_eos": True},
            )
            first = next(events)
            server.post("/abort_request", rid=f"doomed-{number}-")
            *_, last = (first, *events)
            assert last["meta_info"]["finish_reason"]["type"] in ("abort", "length")
            aborted += last["meta_info"]["finish_reason"]["type"] == "abort"
        return aborted

    with ThreadPoolExecutor(1) as pool:
        disturbing = pool.submit(disturb)
        try:
            assert server.all(several) == wanted
        finally:
            stop.set()
        assert disturbing.result() >= 2
