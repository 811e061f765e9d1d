"""The trained controller at run time: a checked artefact, answered by onnxruntime in microseconds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from speckv.controller.arrays import Floats
from speckv.controller.errors import SpecKVError
from speckv.controller.extras import missing
from speckv.export.artefact import Artefact
from speckv.export.exchange import open_controller, save_folder

DEFAULT_ARTEFACT = Path(__file__).parent / "default.onnx"
PROVIDERS = {"cpu": ["CPUExecutionProvider"], "cuda": ["CUDAExecutionProvider", "CPUExecutionProvider"]}
MOST_BOUND = 256
"""Sets of buffers a head keeps, one for each number of rows and set of last features; a loop uses a few dozen."""


def _onnxruntime() -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise SpecKVError(f"{missing('onnxruntime')}, or 'speckv[gpu]' on a machine with CUDA") from None
    return onnxruntime


@dataclass(slots=True)
class Bound:
    """Memory that a session reads and writes: ``signals`` (N, M) and ``answers`` (N, K), which ``run`` fills in.

    ``last`` (K,) are the last feature's values, γ, say.
    """

    run: Callable[[], None]
    signals: NDArray[np.float32]
    last: NDArray[np.float32]
    answers: NDArray[np.float32]


class Head:
    """One head's sessions, one for each set of the last feature's values, with buffers bound once per number of rows.

    ``model`` gives the graph for such a set.
    """

    def __init__(self, model: Callable[[tuple[int, ...]], bytes], name: str, provider: str) -> None:
        self._runtime = _onnxruntime()
        if PROVIDERS[provider][0] not in self._runtime.get_available_providers():
            raise SpecKVError(f"{PROVIDERS[provider][0]} is not available here; pip install 'speckv[gpu]' or say cpu")
        self.name = name
        self._model, self._providers = model, PROVIDERS[provider]
        self._sessions: dict[tuple[int, ...], Any] = {}
        self._bound: dict[tuple[int, tuple[int, ...]], Bound] = {}

    def buffers(self, rows: int, last: tuple[int, ...]) -> Bound:
        """The buffers for ``rows`` sets of signals and these values of the last feature."""
        key = (rows, last)
        if key not in self._bound:
            if len(self._bound) >= MOST_BOUND:
                self._bound.clear()
                self._sessions.clear()
            self._bound[key] = self._bind(rows, last)
        return self._bound[key]

    def _bind(self, rows: int, last: tuple[int, ...]) -> Bound:
        if last not in self._sessions:
            self._sessions[last] = self._open(last)
        session = self._sessions[last]
        taken = session.get_inputs()[0]
        signals = np.zeros((rows, taken.shape[1]), dtype=np.float32)
        answers = np.zeros((rows, len(last)), dtype=np.float32)
        binding = session.io_binding()
        binding.bind_cpu_input(taken.name, signals)
        binding.bind_output(self.name, "cpu", 0, np.float32, answers.shape, answers.ctypes.data)
        run = partial(session.run_with_iobinding, binding)
        return Bound(run, signals, np.array(last, dtype=np.float32), answers)

    def _open(self, last: tuple[int, ...]) -> Any:
        options = self._runtime.SessionOptions()
        # The graph is far too small to share among threads, and a spinning pool takes cores from the models.
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        return self._runtime.InferenceSession(self._model(last), options, providers=self._providers)


class Controller:
    """A loaded controller; implements ``controller.policies.learned.Controller``.

    Not to be shared between threads that decide at the same time: its buffers are reused. Loading is cheap, so give
    each its own.
    """

    def __init__(self, artefact: Artefact, provider: str = "cpu") -> None:
        if provider not in PROVIDERS:
            raise SpecKVError(f"{provider}: no such provider; known are {', '.join(PROVIDERS)}")
        self.artefact = artefact
        self.provider = provider
        self.gammas = tuple(artefact.metadata.gammas)
        self._heads = {name: Head(partial(artefact.head, name), name, provider) for name in artefact.metadata.heads}
        self._check()

    @classmethod
    def load(cls, source: str | Path = "default", provider: str = "cpu") -> Controller:
        """Load the shipped controller (``default``), or what ``export.exchange.open_controller`` reads at a path.

        That is an ``.onnx`` artefact, published weights (``.npz``), or a folder. ``provider`` is ``cpu`` or ``cuda``.
        """
        return cls(open_controller(DEFAULT_ARTEFACT if str(source) == "default" else Path(source)), provider)

    @classmethod
    def from_pretrained(cls, name: str | Path, *, provider: str = "cpu", **options: Any) -> Controller:
        """Load a controller from a folder or a hub repository, the paper's (``Shikhar1/SpecKV``), say.

        ``options`` as in :func:`speckv.integrations.hub.fetch`: ``revision``, ``token``, ``cache_dir`` and others.
        """
        from speckv.integrations.hub import fetch

        return cls(fetch(name, **options), provider)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the artefact, its configuration and a model card to ``folder``, for ``from_pretrained``."""
        save_folder(self.artefact, Path(folder))

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Publish what ``save_pretrained`` writes; returns the commit's URL.

        ``options`` as in :func:`speckv.integrations.hub.publish`: ``private``, ``token``, ``revision``,
        ``commit_message``.
        """
        from speckv.integrations.hub import publish

        return publish(self.artefact, repo_id, **options)

    def __deepcopy__(self, memo: dict[int, Any]) -> Controller:
        return Controller(self.artefact, self.provider)

    def acceptance_rates(self, signals: Sequence[float], level: int, gammas: Sequence[int]) -> Floats:
        """Predicted acceptance rate of each γ, (K,); ``signals`` are the four SIGNAL_FEATURES.

        The array is the session's own memory: valid until the next call.
        """
        bound = self._heads["acceptance_rate"].buffers(1, tuple(gammas))
        bound.signals[0] = (*signals, level)
        bound.run()
        return bound.answers[0]  # type: ignore[no-any-return]

    def survival(self, prefixes: NDArray[np.float32], further: tuple[int, ...]) -> NDArray[np.float32]:
        """Predicted P(at least ``drafted`` + e tokens are accepted) by row and e of ``further`` (K,), (N, K).

        ``prefixes`` (N, 7) float32 are SURVIVAL_FEATURES but the last, finite; the array is the session's own memory:
        valid until the next call.
        """
        head = self._heads.get("survival")
        if head is None:
            return self._survival_by_rates(prefixes, further)
        bound = head.buffers(len(prefixes), further)
        bound.signals[:] = prefixes
        bound.run()
        return bound.answers

    def _survival_by_rates(self, prefixes: NDArray[np.float32], further: tuple[int, ...]) -> NDArray[np.float32]:
        """The same of an artefact without that head, the paper's say.

        Before anything was drafted every token survives with the recent acceptance. Then P(accepted ≥ j) is the
        marginal j·r(j) − (j − 1)·r(j − 1), as far as it falls. Of confidences only the sum of logarithms is at hand:
        their geometric mean stands for mean and minimum.
        """
        entropy, surprise, most, recent, _, level, drafted = prefixes.T
        confidence = np.exp(surprise / np.maximum(drafted, 1))
        deepest = max(1, int(drafted.max()) + max(further))
        bound = self._heads["acceptance_rate"].buffers(len(prefixes), tuple(range(1, deepest + 1)))
        bound.signals[:] = np.stack((entropy, confidence, most, confidence, level), axis=1)
        bound.run()
        marginals = np.diff(bound.answers * bound.last, prepend=0)
        reached = np.minimum.accumulate(np.clip(marginals, 0, 1), axis=1)
        beyond = np.array(further)
        depths = np.maximum(drafted[:, None].astype(np.int64) + beyond, 1)
        found = np.take_along_axis(reached, depths - 1, axis=1)
        found = np.where(drafted[:, None] > 0, found, recent[:, None] ** beyond)
        return found.astype(np.float32)

    def _check(self) -> None:
        """The graph must answer in the right shape with finite probabilities before it decides anything."""
        for head in self._heads.values():
            try:
                bound = head.buffers(2, (0, 4, 12))
                bound.signals[:] = [[0.5], [4.0]]
                bound.run()
            except Exception as error:  # onnxruntime's exceptions share no public base class
                reason = str(error).strip().splitlines()[0][:100]
                raise SpecKVError(f"{self.artefact.source}: head {head.name} does not run ({reason})") from None
            answers = bound.answers
            if not (np.isfinite(answers).all() and (answers >= 0).all() and (answers <= 1).all()):
                raise SpecKVError(f"{self.artefact.source}: head {head.name} gives no probabilities; make it again")
