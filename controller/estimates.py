"""Running estimates: everything that a policy learns is one of these."""

from __future__ import annotations


class Ratio:
    """Σ numerators / Σ denominators, in which every later pair leaves ``keep`` of the weight of those before it.

    It starts at ``start`` with evidence of the weight ``weight``.
    """

    __slots__ = ("_denominator", "_keep", "_numerator")

    def __init__(self, start: float, weight: float, keep: float) -> None:
        self._numerator, self._denominator, self._keep = start * weight, weight, keep

    def add(self, numerator: float, denominator: float) -> None:
        self._numerator = self._keep * self._numerator + numerator
        self._denominator = self._keep * self._denominator + denominator

    @property
    def value(self) -> float:
        return self._numerator / self._denominator
