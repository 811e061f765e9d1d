"""Trees in SGLang: what goes into a verify, and what the CPU stand-ins make of it, against trees followed by hand."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

pytest.importorskip("sglang")

from scipy.stats import chisquare
from sgl_kernel import verify_tree_greedy_cpu
from sglang.srt.speculative.eagle_info import EagleVerifyInput
from sglang.srt.speculative.eagle_utils import TreeMaskMode
from speckv_sglang_cpu.sampling import verify_tree

from speckv.controller.policy import SIBLINGS
from speckv.controller.tree import best_common, sibling_values
from speckv.integrations.sglang.backend import obstacle
from speckv.integrations.sglang.tree import bare, best_siblings, others, tree_input
from speckv.integrations.signals import LEVEL, WIDTH, pack

VOCABULARY = 12
Path = tuple[int, ...]


def drafted(size: int, gamma: int, seed: int, vocabulary: int = VOCABULARY) -> Tensor:
    """Levels (n, γ, WIDTH) as a draft gives them, the most probable tokens their spine."""
    logits = 2 * torch.randn(size * gamma, vocabulary, generator=torch.Generator().manual_seed(seed))
    return pack(logits.argmax(-1, keepdim=True), logits).view(size, gamma, WIDTH)


def chain(levels: Tensor, bonus: Tensor, lengths: Tensor) -> EagleVerifyInput:
    """SGLang's own verify input of the spine; of it only the tokens are used."""
    tokens = torch.cat((bonus[:, None], levels[..., 0].long()), dim=1)
    unused: Any = None
    return EagleVerifyInput(
        draft_token=tokens.flatten(),
        custom_mask=unused,
        positions=unused,
        retrieve_index=unused,
        retrieve_next_token=unused,
        retrieve_next_sibling=unused,
        retrieve_cum_len=unused,
        spec_steps=levels.shape[1],
        topk=1,
        draft_token_num=tokens.shape[1],
        capture_hidden_mode=unused,
        seq_lens_sum=unused,
        seq_lens_cpu=unused,
    )


def built(levels: Tensor, places: Tensor, lengths: Tensor, backend: Any = None) -> EagleVerifyInput:
    bonus = torch.arange(len(levels)) % VOCABULARY
    small = SimpleNamespace(mode=TreeMaskMode.QLEN_ONLY, fits=lambda size: False)
    backend = backend or SimpleNamespace(verify_mask=small)
    return tree_input(chain(levels, bonus, lengths), levels, places, lengths, int(lengths.max()), backend)


def paths_by_hand(levels: Tensor, places: Tensor, row: int) -> list[Path]:
    """What each node of a request's tree stands for: the tokens after the bonus token that lead to it."""
    spine = [int(token) for token in levels[row, :, 0]]
    found = [tuple(spine[:depth]) for depth in range(len(spine) + 1)]
    for place in places[row].tolist():
        depth, rank = divmod(place, SIBLINGS)
        if depth < len(spine):
            found.append((*spine[:depth], int(others(levels)[row, depth, rank])))
    return found


def paths_of(tree: EagleVerifyInput, row: int) -> dict[int, Path]:
    """The same by node, as a verify's kernel follows the tree."""
    size = tree.draft_token_num
    tokens = tree.draft_token.view(-1, size)[row].tolist()
    child, beside = tree.retrieve_next_token[row].tolist(), tree.retrieve_next_sibling[row].tolist()
    found: dict[int, Path] = {}

    def follow(node: int, path: Path) -> None:
        assert node not in found
        found[node] = path
        one = child[node]
        while one != -1:
            follow(one, (*path, tokens[one]))
            one = beside[one]

    follow(0, ())
    return found


@pytest.mark.parametrize("gamma", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("size", [1, 2, 4])
def test_a_tree_is_what_was_chosen(gamma: int, size: int) -> None:
    generator = torch.Generator().manual_seed(gamma * 10 + size)
    for count in range(1, gamma * SIBLINGS + 1):
        levels = drafted(size, gamma, count)
        places = torch.rand(size, gamma * SIBLINGS, generator=generator).argsort(1)[:, :count].sort(1).values
        if count > 1:
            places[0, -1] = gamma * SIBLINGS  # one that is not there
        lengths = torch.randint(1, 40, (size,), generator=generator)
        tree = built(levels, places, lengths)
        assert (tree.draft_token_num, tree.spec_steps, tree.topk) == (gamma + 1 + count, gamma, 2)
        assert tree.num_tokens_per_req == tree.draft_token_num
        assert tree.retrieve_index.flatten().tolist() == list(range(size * tree.draft_token_num))
        sees = tree.custom_mask.view(size, tree.draft_token_num, tree.draft_token_num)
        positions = tree.positions.view(size, -1)
        for row in range(size):
            paths = paths_of(tree, row)
            assert sorted(paths.values()) == sorted(paths_by_hand(levels, places, row))
            for node, path in paths.items():
                assert int(positions[row, node]) == int(lengths[row]) + len(path)
                seen = {other for other in paths if sees[row, node, other]}
                assert seen == {
                    other
                    for other, before in paths.items()
                    if path[: len(before)] == before and (other == node or len(before) < len(path))
                }
                assert not any(sees[row, node, other] for other in set(range(tree.draft_token_num)) - set(paths))


def test_a_mask_with_the_columns_before() -> None:
    """As GPU kernels read it: N rows of (length + N) for each request, in a buffer of the backend's or a new one."""
    levels, lengths = drafted(3, 2, 0), torch.tensor([5, 1, 9])
    places = best_siblings(levels, 2)
    small = built(levels, places, lengths).custom_mask.view(3, 5, 5)
    wanted = torch.cat(
        [
            torch.cat((torch.ones(5, int(length), dtype=torch.bool), own), 1).flatten()
            for length, own in zip(lengths, small, strict=True)
        ]
    )
    for dtype, room in ((torch.bool, 0), (torch.uint8, 40)):
        buffer = torch.zeros(len(wanted) + room, dtype=dtype)
        own = SimpleNamespace(buffer=buffer, mode=TreeMaskMode.FULL_MASK, fits=lambda size: size <= 3)
        mask = built(levels, places, lengths, SimpleNamespace(verify_mask=own)).custom_mask
        assert mask is buffer and torch.equal(mask[: len(wanted)].bool(), wanted)
    own = SimpleNamespace(buffer=torch.zeros(1), mode=TreeMaskMode.FULL_MASK, fits=lambda size: False)
    mask = built(levels, places, lengths, SimpleNamespace(verify_mask=own)).custom_mask
    assert torch.equal(mask[: len(wanted)], wanted)


def test_the_most_valuable_siblings_are_those_of_the_controller() -> None:
    levels = drafted(4, 5, 3)
    signals = levels[..., LEVEL].double().numpy()
    reach = np.concatenate((np.ones((4, 1)), signals[:, :-1, 1]), axis=1).cumprod(axis=1)
    values = sibling_values(reach, signals[..., 2:], np.ones(SIBLINGS))
    for count in (1, 4, 9):
        places = best_siblings(levels, count).numpy()
        chosen = np.zeros((4, 5 * SIBLINGS), dtype=bool)
        np.put_along_axis(chosen, places, True, axis=1)
        assert (chosen == best_common(values, count).reshape(4, -1)).all()
        assert (np.diff(places, axis=1) > 0).all()


def test_siblings_that_are_not_there() -> None:
    """A vocabulary of three tokens has two others, and signals that are not finite have none."""
    few = drafted(2, 2, 0, vocabulary=3)
    places = best_siblings(few, 6)
    assert (places[:, :4] < 6).all() and (places[:, 4:] == 6).all()
    few[0, :, 1:] = float("nan")
    assert (best_siblings(few, 2)[0] == 6).all() and (others(few)[0] == -1).all()
    assert len(paths_of(built(few, best_siblings(few, 2), torch.tensor([4, 4])), 0)) == 3


def verified(tree: EagleVerifyInput, size: int, kernel: Any, **arguments: Any) -> list[Path]:
    """The tokens that each request gets, by a verify's kernel."""
    width = tree.draft_token_num
    predicts = torch.zeros(size * width, dtype=torch.int32)
    index = torch.full((size, tree.max_tree_depth), -1, dtype=torch.int32)
    accepted = torch.empty(size, dtype=torch.int32)
    kernel(
        predicts=predicts,
        accept_index=index,
        accept_token_num=accepted,
        candidates=tree.draft_token.view(size, width),
        retrive_index=tree.retrieve_index,
        retrive_next_token=tree.retrieve_next_token,
        retrive_next_sibling=tree.retrieve_next_sibling,
        **arguments,
    )
    rows = zip(index.tolist(), accepted.tolist(), strict=True)
    return [tuple(int(predicts[node]) for node in nodes[: count + 1]) for nodes, count in rows]


def test_greedy_follows_the_targets_tokens() -> None:
    generator = torch.Generator().manual_seed(1)
    depths: Counter[int] = Counter()
    for seed in range(60):
        levels = drafted(2, 4, seed)
        places = best_siblings(levels, 1 + seed % 12)
        tree = built(levels, places, torch.tensor([7, 3]))
        says = torch.randint(0, VOCABULARY, (2, tree.draft_token_num), generator=generator)
        if seed % 2:  # most rows agree with a node that follows them
            for row in range(2):
                paths = paths_of(tree, row)
                for node, path in paths.items():
                    after = [other[-1] for other in paths.values() if other and other[:-1] == path]
                    if after:
                        says[row, node] = after[seed % len(after)]
        got = verified(tree, 2, verify_tree_greedy_cpu, target_predict=says)
        for row in range(2):
            by_path = {path: node for node, path in paths_of(tree, row).items()}
            wanted: Path = ()
            while wanted in by_path:
                wanted = (*wanted, int(says[row, by_path[wanted]]))
            assert got[row] == wanted
            depths[len(wanted)] += 1
    assert {1, 2, 3, 5} <= set(depths)


@pytest.mark.parametrize("siblings", [0, 3])
def test_nothing_is_accepted_of_a_request_that_is_decoded_plainly(siblings: int) -> None:
    levels = drafted(2, 3, 5)
    tree = built(levels, best_siblings(levels, 3), torch.tensor([7, 3]))
    if not siblings:  # a chain of SGLang's own
        follow = torch.tensor([[1, 2, 3, -1]] * 2)
        tree = replace(
            chain(levels, torch.tensor([0, 1]), torch.tensor([7, 3])),
            retrieve_index=torch.arange(8).view(2, 4),
            retrieve_next_token=follow,
            retrieve_next_sibling=torch.full((2, 4), -1),
        )
    says = torch.zeros((2, tree.draft_token_num), dtype=torch.long)
    says[:, :3] = levels[..., 0]
    before = verified(tree, 2, verify_tree_greedy_cpu, target_predict=says)
    assert [len(path) for path in before] == [4, 4]
    plain = bare(tree, [1])
    assert plain.topk > 1 and tree.retrieve_next_token[1, 0] == 1
    after = verified(plain, 2, verify_tree_greedy_cpu, target_predict=says)
    assert after == [before[0], (int(levels[1, 0, 0]),)]


def _wrong_rule(**arguments: Any) -> None:
    """A sibling accepted by its own coin with its probability, as if what came before it had not been refused."""
    children, beside = arguments["retrive_next_token"].tolist(), arguments["retrive_next_sibling"].tolist()
    for row in range(len(children)):
        node = accepted = 0
        while True:
            here = int(arguments["retrive_index"][row, node])
            arguments["accept_index"][row, accepted] = here
            rest = arguments["target_probs"][row, node].clone()
            child = children[row][node]
            while child != -1:
                token = int(arguments["candidates"][row, child])
                if torch.rand(()) < arguments["target_probs"][row, node, token]:
                    break
                rest[token] = 0
                child = beside[row][child]
            if child == -1:
                break
            arguments["predicts"][here] = arguments["candidates"][row, child]
            node, accepted = child, accepted + 1
        arguments["predicts"][here] = int(torch.multinomial(rest, 1))
        arguments["accept_token_num"][row] = accepted


@pytest.mark.parametrize(
    ("kernel", "right", "plain"), [(verify_tree, True, False), (_wrong_rule, False, False), (verify_tree, True, True)]
)
def test_sampling_keeps_the_distribution(kernel: Any, right: bool, plain: bool) -> None:
    """The first token of 8,000 verifies of one tree whose siblings have much of the target's probability."""
    torch.manual_seed(0)
    count = 8000
    levels = drafted(1, 2, 5).expand(count, -1, -1)
    places = best_siblings(levels, 4)
    tree = built(levels, places, torch.full((count,), 6))
    probabilities = torch.softmax(torch.randn(VOCABULARY), -1)
    for node, path in paths_of(tree, 0).items():
        if len(path) == 1:
            probabilities[path[0]] += 0.15 + 0.02 * node
    probabilities /= probabilities.sum()
    target = probabilities.expand(count, tree.draft_token_num, -1)
    said = verified(
        bare(tree, [*range(count)]) if plain else tree,
        count,
        kernel,
        uniform_samples=torch.rand(count, tree.draft_token_num),
        uniform_samples_for_final_sampling=torch.rand(count),
        target_probs=target,
        draft_probs=torch.zeros_like(target),
    )
    assert {len(path) for path in said} == ({1} if plain else {1, 2, 3})
    found = Counter(path[0] for path in said)
    expected = probabilities.double().numpy()
    fit = chisquare([found[token] for token in range(VOCABULARY)], expected / expected.sum() * count)
    assert (fit.pvalue > 1e-3) == right, fit


class TritonAttnBackend:
    pass


class OtherBackend:
    pass


@pytest.mark.parametrize(
    ("backend", "config", "words"),
    [
        (TritonAttnBackend, {}, None),
        (OtherBackend, {}, "OtherBackend does not take a tree's mask"),
        (TritonAttnBackend, {"sliding_window_size": 128}, "window"),
        (TritonAttnBackend, {"is_hybrid_swa": True}, "window"),
        (TritonAttnBackend, {"model_is_mrope": True}, "positions"),
    ],
)
def test_what_cannot_verify_a_tree_is_named(backend: type, config: dict[str, Any], words: str | None) -> None:
    facts = {"sliding_window_size": None, "is_hybrid_swa": False, "model_is_mrope": False} | config
    found = obstacle(SimpleNamespace(attn_backend=backend(), model_config=SimpleNamespace(**facts)))
    assert found == words or (words is not None and found is not None and words in found)
