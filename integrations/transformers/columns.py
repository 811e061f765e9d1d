"""The cache of a batch whose sequences grow unevenly: it grows by columns, of which each sequence keeps its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from transformers import Cache

from speckv.integrations.device import read, sent
from speckv.integrations.transformers.cache import filled

WASTE, LEAST_WASTE = 0.25, 32
"""Share of columns, and number of them, that no sequence needs, above which they are taken out."""


def by_kind(masks: dict[str, Tensor]) -> dict[str, Tensor] | Tensor:
    """The ``masks`` of the kinds of attention as a forward takes them: the only one as it is."""
    return masks if len(masks) > 1 else next(iter(masks.values()))


def additive(allowed: Tensor, dtype: torch.dtype) -> Tensor:
    """``allowed`` (…) as what is added to attention's scores, which eager attention and sdpa both take."""
    zeros = torch.zeros(allowed.shape, dtype=dtype, device=allowed.device)
    return zeros.masked_fill_(~allowed, torch.finfo(dtype).min)


class Columns:
    """``held`` (n, S): which columns are tokens of a sequence, and ``places`` (n, S): which of its tokens they are."""

    def __init__(self, sequences: int, device: torch.device) -> None:
        self.held = torch.zeros(sequences, 0, dtype=torch.bool, device=device)
        self.places = torch.zeros(sequences, 0, dtype=torch.long, device=device)
        self.looked_at = 0

    def masks(
        self, sees: Tensor, places: Tensor, kinds: Mapping[str, int | None], dtype: torch.dtype
    ) -> dict[str, Tensor] | Tensor:
        """For a forward of m new tokens a sequence: which of them ``sees`` (n, m, m) which; all see what is held.

        ``places`` (n, m) are theirs, ``kinds`` the windows of the layers' kinds of attention. One mask (n, 1, m, S + m)
        for each kind, or the only one.
        """
        allowed = torch.cat((self.held[:, None].expand(-1, sees.shape[1], -1), sees), dim=2)
        masks = {}
        for kind, window in kinds.items():
            near = allowed
            if window is not None:
                near = allowed & (places[:, :, None] - torch.cat((self.places, places), dim=1)[:, None] < window)
            masks[kind] = additive(near, dtype)[:, None]
        return by_kind(masks)

    def append(self, held: Tensor, places: Tensor) -> None:
        """A forward has added columns, ``held`` (n, m) or not."""
        self.held = torch.cat((self.held, held), dim=1)
        self.places = torch.cat((self.places, places), dim=1)

    def keep(self, lengths: Tensor) -> None:
        """Of each sequence hold no more than so many (n,) tokens."""
        self.held = self.held & (self.places < lengths[:, None])

    def compact(self, cache: Cache) -> None:
        """Take out of ``cache`` what is not needed, if that is much."""
        count = self.held.shape[1]
        if count < self.looked_at:
            return
        ((needed,),) = read([self.held.sum(1).max()[None]])
        left = max(LEAST_WASTE, WASTE * count) - (count - needed)
        if left >= 0:
            self.looked_at = count + int(left) + 1  # at the earliest: to look is to wait for the device
            return
        self.looked_at = 0
        # Those held come last, in their order.
        order = self.held.int().argsort(dim=1, stable=True)[:, count - needed :]
        self.held, self.places = self.held.gather(1, order), self.places.gather(1, order)
        for layer in filled(cache):
            for name in ("keys", "values"):
                states = getattr(layer, name)
                picked = order.to(states.device)[:, None, :, None]
                setattr(layer, name, states.gather(2, picked.expand(-1, states.shape[1], -1, states.shape[3])))

    def select(self, sequences: Sequence[int], cache: Cache) -> None:
        """Go on with these ``sequences`` alone."""
        chosen = sent(list(sequences), self.held.device)
        self.held, self.places = self.held[chosen], self.places[chosen]
        cache.batch_select_indices(chosen)
