"""Load a draft/target pair: by name, hub id or folder, at a compression level, with its tokenizer."""

from __future__ import annotations

import copy
import logging
import os
import socket
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, PreTrainedModel

from speckv.controller.errors import SpecKVError
from speckv.integrations.models.catalog import DEFAULT_PAIR, PAIRS, MirroredFile
from speckv.integrations.models.convert import dense_folder
from speckv.integrations.models.mirrored import Progress

COMPRESSIONS = ("fp32", "fp16", "bf16", "int8", "nf4")
HUB_TIMEOUT_S = 5.0
DENSE_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Sources:
    """Where a pair's weights are: a hub id or a local folder each; ``draft`` None derives it by weight noise."""

    target: str
    draft: str | None
    noise: float
    origin: str

    def check(self) -> None:
        """Raise SpecKVError for one that cannot be had."""
        for source in (self.target, self.draft):
            if source is not None:
                at_hand(source)


def hub_reachable(timeout: float = 3.0) -> bool:
    """Whether the model hub answers; ``HF_HUB_OFFLINE=1`` says no without asking."""
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in {"1", "true", "yes", "on"}:
        return False
    from huggingface_hub import constants

    host = constants.ENDPOINT.split("://")[-1].split("/")[0]
    try:
        with socket.create_connection((host, 443), timeout=timeout):
            return True
    except OSError:
        return False


def default_pair() -> str:
    """What ``default`` means here, to be named in a result: the hub's Qwen2.5-Coder pair, or the mirrored one."""
    pair = PAIRS[DEFAULT_PAIR]
    return f"{pair.target_hub},{pair.draft_hub}" if hub_reachable() else DEFAULT_PAIR


def resolve(name: str = "default", progress: Progress = lambda *_: None) -> Sources:
    """Find a named pair's weights.

    ``default`` is the hub's Qwen2.5-Coder pair where the hub answers, else the mirrored one. ``qwen2.5-coder`` and
    ``smollm2`` are always the mirrored files. ``TARGET,DRAFT`` gives two hub ids or folders.
    """
    if "," in name:
        target, draft = (part.strip() for part in name.split(",", 1))
        for given in (target, draft):
            if not given:
                raise SpecKVError(f"{name}: one of the two is missing; give TARGET,DRAFT as hub ids or folders")
            looks_local = given.startswith((".", "/", "~")) or given.count("/") > 1
            if looks_local and not (Path(given).expanduser() / "config.json").exists():
                raise SpecKVError(f"{given}: no model folder (no config.json in it); give a folder or a hub id")
        return Sources(_expanded(target), _expanded(draft), 0.0, "given by you")
    if name == "default" and hub_reachable():
        pair = PAIRS[DEFAULT_PAIR]
        return Sources(pair.target_hub, pair.draft_hub, pair.noise, "the hub; Apache-2.0")
    pair_name = DEFAULT_PAIR if name == "default" else name
    if pair_name not in PAIRS:
        known = ", ".join(["default", *PAIRS])
        raise SpecKVError(f"{name}: no such pair; known are {known}, or give TARGET,DRAFT as hub ids or folders")
    pair = PAIRS[pair_name]

    def folder(file: MirroredFile) -> str:
        return str(dense_folder(file, progress))

    origin = "; ".join(f"{f.origin}, {f.licence}" for f in (pair.target, pair.draft) if f)
    return Sources(folder(pair.target), folder(pair.draft) if pair.draft else None, pair.noise, origin)


def _expanded(source: str) -> str:
    """A folder under ~ in full; a hub id as it is."""
    return str(Path(source).expanduser()) if source.startswith("~") else source


def quantization(compression: str) -> dict[str, Any]:
    """The ``from_pretrained`` arguments of a compression level (see COMPRESSIONS); bitsandbytes for int8 and nf4."""
    if compression in DENSE_DTYPES:
        return {"dtype": DENSE_DTYPES[compression]}
    if compression == "int8":
        # One warning line per layer call on a CPU: the cast to float16 inside LLM.int8() is how it works.
        logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
        return {"quantization_config": BitsAndBytesConfig(load_in_8bit=True), "dtype": torch.bfloat16}
    if compression == "nf4":
        config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16)
        return {"quantization_config": config, "dtype": torch.bfloat16}
    raise SpecKVError(f"{compression}: no such compression; known are {', '.join(COMPRESSIONS)}")


def load_model(source: str, compression: str = "bf16", device: str | None = None) -> PreTrainedModel:
    """Load a causal language model for inference. Raises SpecKVError with one line when it cannot be had."""
    placement = {"device_map": device} if device else {}
    if compression in ("int8", "nf4") and not device:
        placement = {"device_map": "cuda" if torch.cuda.is_available() else "cpu"}
    arguments = quantization(compression)
    found = at_hand(source)
    try:
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(found, **arguments, **placement).eval()
    except (OSError, ValueError) as error:
        raise SpecKVError(_failed(source, error)) from None
    model.config.name_or_path = source  # by which its stored costs are found again, wherever it was loaded from
    return model


def load_tokenizer(source: str) -> Any:
    """The tokenizer of a hub id or folder. Raises SpecKVError as ``load_model`` does."""
    found = at_hand(source)
    try:
        return AutoTokenizer.from_pretrained(found)
    except (OSError, ValueError) as error:
        raise SpecKVError(_failed(f"{source}: its tokenizer", error)) from None


def at_hand(source: str) -> str:
    """``source``, a folder or hub id, as ``from_pretrained`` takes it; of an id the hub is asked once, and briefly.

    Raises SpecKVError where the hub has none of that name. Where it does not answer, it is the folder in its cache, if
    there is one: with the id ``from_pretrained`` would ask again and again, for a minute.
    """
    return source if Path(source).is_dir() else _on_hub(source)


@cache
def _on_hub(source: str) -> str:
    """:func:`at_hand` of a hub id; kept for the process, in which checks, models and tokenizer all ask."""
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError

    try:
        HfApi().model_info(source, timeout=HUB_TIMEOUT_S)
    except HFValidationError:
        raise SpecKVError(f"{source}: neither a folder nor a hub id; give one of them") from None
    except RepositoryNotFoundError:
        raise SpecKVError(
            f"{source}: no such folder, and no such repository on the hub; mend the name, or run `hf auth login` if it "
            "is a private one"
        ) from None
    except Exception:  # the hub's and httpx's errors share no base class
        try:
            return str(snapshot_download(source, local_files_only=True))
        except Exception:
            raise SpecKVError(
                f"{source}: no such folder, not in the hub's cache, and the hub cannot be reached; give a folder, or "
                "run this again when it can be"
            ) from None
    return source


def _failed(what: str, error: Exception) -> str:
    return f"{what}: cannot be loaded ({(str(error).strip().splitlines() or ['no reason is given'])[0]})"


def perturbed(model: PreTrainedModel, noise: float, seed: int = 0) -> PreTrainedModel:
    """A copy of ``model`` whose matrices carry Gaussian noise of ``noise`` times their own standard deviation.

    A stand-in draft for tests: it agrees with its target on most tokens, which a truncated model does not.
    """
    draft = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in draft.parameters():
            if parameter.dim() == 2:
                noise_like = torch.randn(parameter.shape, generator=generator).to(parameter)
                parameter.add_(noise_like * parameter.std(), alpha=noise)
    return draft


def load_pair(
    name: str = "default",
    compression: str = "bf16",
    draft_compression: str = "bf16",
    device: str | None = None,
    progress: Progress = lambda *_: None,
) -> tuple[PreTrainedModel, PreTrainedModel, Any]:
    """Load ``(target, draft, tokenizer)`` of a pair; see :func:`resolve` for ``name``."""
    sources = resolve(name, progress)
    sources.check()  # both before the first is loaded, which may take minutes
    target = load_model(sources.target, compression, device)
    if sources.draft is None:
        dense = load_model(sources.target, draft_compression, device)
        draft = perturbed(dense, sources.noise)
    else:
        draft = load_model(sources.draft, draft_compression, device)
    return target, draft, load_tokenizer(sources.target)
