"""The arithmetic of choosing γ for a whole step, from predicted acceptance rates."""

from __future__ import annotations

from speckv.controller.arrays import Floats, Ints


def expected_tokens(acceptance: Floats, gammas: Floats) -> Floats:
    """E[tokens | γ] = 1 + γ · r(γ), accepted and the target's own; ``acceptance`` (N, K), ``gammas`` (K,)."""
    return 1.0 + acceptance * gammas


def best_for_tokens(acceptance: Floats, gammas: Floats) -> Ints:
    """The paper's rule: per row, the index of the γ with most expected tokens (the first of equals).

    The target's own token is the same for every γ and left out.
    """
    best: Ints = (acceptance * gammas).argmax(axis=-1)
    return best


def best_for_throughput(acceptance: Floats, gammas: Floats, step_ms: Floats, rate: float) -> Ints:
    """Per row, the index of argmax E[tokens | γ] − ρ·t(γ); ρ = ``rate`` (tokens per ms), t = ``step_ms``.

    Maximising tokens per second over a run of steps is this per step, where ρ is the run's own throughput
    (Dinkelbach's method for a ratio of sums).
    """
    best: Ints = (expected_tokens(acceptance, gammas) - rate * step_ms).argmax(axis=-1)
    return best
