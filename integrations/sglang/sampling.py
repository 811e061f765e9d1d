"""What of a request's sampling SGLang's verify leaves out or approximates, and what makes it exact."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sglang.srt.speculative import eagle_utils


def relaxed(request: Any) -> bool:
    """Whether SGLang would judge all that a round drafts by what had been said before it, and count one token of it.

    So it does for penalties and for the fewest new tokens ("a relaxed version" by its own words): such requests are
    decoded plainly.
    """
    asked = request.sampling_params
    penalised = asked.frequency_penalty or asked.presence_penalty or asked.repetition_penalty != 1.0
    return bool(penalised) or len(request.output_ids) < asked.min_new_tokens


def can_sample() -> bool:
    """Whether SGLang's verify has what samples on this platform."""
    return eagle_utils.tree_speculative_sampling_target_only is not None


@contextmanager
def min_p_heeded(info: Any) -> Iterator[None]:
    """Around a verify of a batch with the SamplingBatchInfo ``info``: what its requests' min-p excludes is not drawn.

    SGLang leaves it out there. It cuts after top-k and top-p, as in its sampler.
    """
    sample = eagle_utils.tree_speculative_sampling_target_only

    def cut(*, target_probs: Any, **options: Any) -> Any:
        least = target_probs.amax(-1, keepdim=True) * info.min_ps.view(-1, 1, 1)
        kept = target_probs.masked_fill(target_probs < least, 0.0)
        return sample(target_probs=kept / kept.sum(-1, keepdim=True), **options)

    if info.need_min_p_sampling:
        eagle_utils.tree_speculative_sampling_target_only = cut
    try:
        yield
    finally:
        eagle_utils.tree_speculative_sampling_target_only = sample
