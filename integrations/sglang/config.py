"""What a user may say in the file of ``--speculative-adaptive-config``, and how a mistake in it is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from speckv.controller.errors import SpecKVError
from speckv.controller.features import compression_level
from speckv.controller.policies import MODES, OBJECTIVES
from speckv.controller.policies.throughput import HIGHEST_CEILING
from speckv.controller.policy import SIBLINGS
from speckv.integrations.runtime import Controller

NAME = "SPECKV"
"""The algorithm's, for ``--speculative-algorithm``."""

HEADS = ("EAGLE", "EAGLE3", "NEXTN")
"""SGLang's own algorithms that draft with a head of the target."""

KEY = "speckv"
"""Of the object in a file of ``--speculative-adaptive-config`` that asks for our decisions with one of these."""

DEFAULT_CEILING = 8
MOST = HIGHEST_CEILING

MOST_VERIFIED = 1 + MOST * (1 + SIBLINGS)

TREES = (3, 5, 7, 9, 12, 16)
"""Tokens of a request in a tree's verify, by default: where graphs are captured, two more than chains have anyway."""


class LaunchError(SpecKVError, SystemExit):
    """A configuration with which the server must not start.

    To whoever holds an ``Engine`` it is an exception like any other; nobody catching it, Python prints its one
    line, without a traceback, and exits with code 1, which is what a server's log should show.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.code = message


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The keys of the configuration file; all may be left out.

    controller : ``default`` (the shipped one), or the path of an ``.onnx`` artefact.
    objective : ``throughput`` (tokens per second) or ``tokens`` (per step, the paper's).
    mode : ``token`` (decide after each drafted token; needs a draft loop that is not captured in a CUDA graph)
        or ``step``; by default ``token`` where it is possible.
    max_gamma : the ceiling; ``--speculative-num-steps`` says the same.
    gamma : a fixed γ instead of a controller.
    fallback_gamma : γ while the draft's signals are not finite.
    compression : of the target (fp16, int8, nf4), where it cannot be read from its configuration.
    widths : in step mode, the γ for which a CUDA graph is captured; others are rounded down to one of these.
    trees : the numbers of tokens of a request that a tree's verify may have; an empty list: chains only.
    warm_up : seconds that timing rounds may take at start-up, where no costs are stored; 0 for a guess by size.
    log_every : rounds between two log lines.
    log_level : of the logger ``speckv``.
    """

    controller: str = "default"
    objective: str = "throughput"
    mode: str | None = None
    max_gamma: int | None = None
    gamma: int | None = None
    fallback_gamma: int = 4
    compression: str | None = None
    widths: tuple[int, ...] | None = None
    trees: tuple[int, ...] = TREES
    warm_up: float | None = None
    log_every: int = 500
    log_level: str = "info"


def read_config(path: str | None) -> Config:
    """The configuration in the JSON file ``path``, or the default one. Raises LaunchError, naming file and key."""
    if path is None:
        return Config()
    try:
        content = Path(path).expanduser().read_bytes()
    except OSError as error:
        raise LaunchError(f"speckv: {path}: cannot be read ({error.strerror})") from None
    try:
        return _checked(path, msgspec.json.decode(content))
    except msgspec.DecodeError as error:
        raise LaunchError(f"speckv: {path}: {error}") from None


def read_head_config(path: str | None) -> Config | None:
    """What the object "speckv" in the JSON file ``path`` says; None where there is none, and SGLang is to decide.

    Raises LaunchError, naming file and key.
    """
    if path is None:
        return None
    try:
        content = msgspec.json.decode(Path(path).expanduser().read_bytes())
    except (OSError, msgspec.DecodeError):  # which SGLang reports
        return None
    return _checked(path, content[KEY]) if isinstance(content, dict) and KEY in content else None


def asked_config(server_args: Any) -> Config | None:
    """The configuration where ``server_args`` ask for SPECKV, with a separate draft or with a head; None elsewhere."""
    algorithm, path = str(server_args.speculative_algorithm).upper(), server_args.speculative_adaptive_config
    if algorithm == NAME:
        return read_config(path)
    return read_head_config(path) if algorithm in HEADS and server_args.speculative_adaptive else None


def _checked(path: str, content: Any) -> Config:
    try:
        config = msgspec.convert(content, Config, strict=True)
        _check(config, set(content))
    except msgspec.ValidationError as error:
        known = ", ".join(Config.__struct_fields__)
        raise LaunchError(f"speckv: {path}: {error}; known keys: {known}") from None
    except SpecKVError as error:
        raise LaunchError(f"speckv: {path}: {error}") from None
    return config


def _check(config: Config, given: set[str]) -> None:
    """Raise SpecKVError where a value is out of range or two keys contradict each other; ``given`` are those said."""
    for key, value, known in (
        ("objective", config.objective, OBJECTIVES),
        ("mode", config.mode or "token", MODES),
        ("log_level", config.log_level, ("debug", "info", "warning", "error")),
    ):
        if value not in known:
            raise SpecKVError(f"{key} {value}: must be one of {', '.join(known)}")
    for key in ("max_gamma", "gamma", "fallback_gamma"):
        least = 1 if key == "max_gamma" else 0
        if (number := getattr(config, key)) is not None and not least <= number <= MOST:
            raise SpecKVError(f"{key} {number}: must be within {least} … {MOST}")
    if config.warm_up is not None and not 0 <= config.warm_up <= 600:
        raise SpecKVError(f"warm_up {config.warm_up}: must be within 0 … 600 seconds")
    if config.log_every < 1:
        raise SpecKVError(f"log_every {config.log_every}: must be 1 or more")
    if config.compression is not None:
        compression_level(config.compression)
    if config.gamma is not None and (
        others := given & {"controller", "objective", "mode", "fallback_gamma", "widths", "trees"}
    ):
        raise SpecKVError(f"gamma fixes the speculation length, so it contradicts {', '.join(sorted(others))}")
    if config.gamma is not None and config.max_gamma is not None and config.gamma > config.max_gamma:
        raise SpecKVError(f"gamma {config.gamma} contradicts max_gamma {config.max_gamma}")
    if config.objective == "tokens" and config.mode == "token":
        raise SpecKVError("objective tokens decides per step, so it contradicts mode token")
    if config.widths is not None and config.mode != "step":
        raise SpecKVError("widths are for mode step; add it, or leave them out")
    if config.widths is not None and (not config.widths or not all(0 <= width <= MOST for width in config.widths)):
        raise SpecKVError(f"widths must be numbers within 0 … {MOST}")
    if not all(2 < size <= MOST_VERIFIED for size in config.trees):
        raise SpecKVError(f"trees must be numbers within 3 … {MOST_VERIFIED}")


def tree_sizes(config: Config, ceiling: int) -> tuple[int, ...]:
    """The numbers of tokens of a request that trees are to have with up to ``ceiling`` levels; none: chains only."""
    if config.gamma is not None or config.objective != "throughput":
        return ()
    return tuple(size for size in config.trees if size <= 1 + ceiling * (1 + SIBLINGS))


def ceiling(config: Config, num_steps: int | None) -> int:
    """The largest γ, from the configuration and ``--speculative-num-steps``; LaunchError where they disagree."""
    said = {value for value in (config.max_gamma, config.gamma, num_steps) if value}
    if config.max_gamma and num_steps and config.max_gamma != num_steps:
        raise LaunchError(f"speckv: --speculative-num-steps {num_steps} contradicts max_gamma {config.max_gamma}")
    highest = config.max_gamma or num_steps or max(said, default=DEFAULT_CEILING)
    for name, values in (("gamma", (config.gamma or 0,)), ("widths", config.widths or ())):
        if any(value > highest for value in values):
            raise LaunchError(f"speckv: {name} {max(values)} is above the ceiling {highest}; raise max_gamma")
    if not 1 <= highest <= MOST:
        raise LaunchError(f"speckv: --speculative-num-steps {highest}: must be within 1 … {MOST}")
    return highest


def load_controller(config: Config) -> Controller | None:
    """The configured controller, checked; None for a fixed γ. Raises LaunchError with the reason in one line."""
    if config.gamma is not None:
        return None
    try:
        return Controller.load(config.controller)
    except (SpecKVError, OSError) as error:
        raise LaunchError(f"speckv: controller: {error}") from None
