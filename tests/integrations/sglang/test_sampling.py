"""What SGLang's verify leaves out of a request's sampling is put back, for as long as the verify lasts."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

pytest.importorskip("sglang")

from sglang.srt.speculative import eagle_utils

from speckv.integrations.sglang.sampling import min_p_heeded


def test_min_p_cuts_every_node_by_its_own_request(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(eagle_utils, "tree_speculative_sampling_target_only", lambda **given: seen.append(given))
    original = eagle_utils.tree_speculative_sampling_target_only
    probabilities = torch.tensor([[[0.5, 0.3, 0.2], [0.1, 0.6, 0.3]], [[0.5, 0.3, 0.2], [0.0, 1.0, 0.0]]])
    info = SimpleNamespace(need_min_p_sampling=True, min_ps=torch.tensor([0.5, 0.0]))
    with pytest.raises(KeyError), min_p_heeded(info):
        eagle_utils.tree_speculative_sampling_target_only(target_probs=probabilities, coins=1)
        raise KeyError
    expected = torch.tensor([[[0.625, 0.375, 0.0], [0.0, 2 / 3, 1 / 3]], probabilities[1].tolist()])
    assert torch.allclose(seen[0]["target_probs"], expected) and seen[0]["coins"] == 1
    assert eagle_utils.tree_speculative_sampling_target_only is original
    with min_p_heeded(SimpleNamespace(need_min_p_sampling=False)):
        assert eagle_utils.tree_speculative_sampling_target_only is original
