"""A tiny random float32 model of every architecture of text that the installed transformers registers.

Nothing is downloaded. A configuration is the registry's own default, shrunk by the *names* of its attributes, its
layers cut to one of each kind; ``architecture_sizes.py`` has the names, and what they alone do not say.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
import transformers
from architecture_sizes import BY_NAME, FACTORS, LAYERS, OVERRIDES, SEEDS, VOCABULARY
from transformers.models.auto import modeling_auto
from transformers.models.auto.configuration_auto import CONFIG_MAPPING


def model_types() -> list[str]:
    """Every type of causal language model that the installed transformers registers."""
    return list(modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def _chosen_layers(config: dict[str, Any], count: int) -> list[int]:
    """Indices of layers of which each differs in some per-layer list, at least two."""
    lists = [v for v in config.values() if isinstance(v, (list, tuple)) and len(v) == count]
    chosen: dict[str, int] = {}
    for index in range(count):
        chosen.setdefault(repr([v[index] for v in lists if not isinstance(v[index], float)]), index)
    first = sorted(chosen.values())[:4]
    return first if len(first) > 1 else list(range(min(count, 2)))


def shrunk(config: Any, **changes: Any) -> Any:
    """A new configuration of the same class with everything small."""
    before = config.to_dict()
    values: dict[str, Any] = {}
    count = next((before[name] for name in LAYERS if isinstance(before.get(name), int)), 0)
    chosen = _chosen_layers(before, count) if count > 1 else []
    for name, value in before.items():
        if isinstance(value, dict) and "model_type" in value:
            values[name] = shrunk(getattr(config, name))
        elif name in LAYERS and isinstance(value, int):
            values[name] = len(chosen) or 2
        elif isinstance(value, (list, tuple)) and count > 1 and len(value) == count:
            values[name] = [value[index] for index in chosen]
        elif name in BY_NAME and isinstance(value, int) and not isinstance(value, bool):
            values[name] = min(BY_NAME[name], value)
        elif name.endswith(("_token_id", "_token_index")) and isinstance(value, int):
            values[name] = min(value, 1 if name == "pad_token_id" else VOCABULARY - 1)
    values |= {name: factor for name, factor in FACTORS.items() if name in before}
    if "qk_rope_head_dim" in before:
        values |= {"head_dim": BY_NAME["qk_rope_head_dim"], "num_key_value_heads": BY_NAME["num_attention_heads"]}
    if "pad_token_id" in before:
        values.setdefault("pad_token_id", 0)
    return type(config)(**values | OVERRIDES.get(config.model_type, {}) | changes)


def _seeded(model: torch.nn.Module, gain: float, seed: int) -> None:
    """Weights with which greedy text wanders, looks back at its tokens, and leaves margins far above rounding."""
    generator = torch.Generator().manual_seed(seed)
    matrices = {name: p for name, p in model.named_parameters() if p.dim() >= 2}
    learned = any(("position" in name or "wpe" in name) and "vision" not in name for name in matrices)
    for name, parameter in matrices.items():
        if name.endswith(("A_log", "conv1d.weight", "lambda_param")):
            continue
        scale = gain / math.sqrt(parameter.shape[-1])
        if "position" in name or "wpe" in name:
            scale = 0.3
        elif "embed" in name or "wte" in name:
            scale = 0.1 if learned else 0.02
        with torch.no_grad():
            parameter.normal_(0, scale, generator=generator)


def build(model_type: str, **changes: Any) -> Any:
    """A tiny model of ``model_type``, always the same; ``changes`` are of its configuration."""
    torch.manual_seed(0)
    config = shrunk(CONFIG_MAPPING[model_type](), **changes)
    for part in (config, *(getattr(config, x) for x in getattr(config, "sub_configs", {}) if getattr(config, x, None))):
        if hasattr(part, "is_decoder"):
            part.is_decoder = True
    return _ready(transformers.AutoModelForCausalLM.from_config(config), model_type)


def build_vision(model_type: str) -> Any:
    """A tiny model of ``model_type`` that takes images, and generates text."""
    torch.manual_seed(0)
    config = shrunk(CONFIG_MAPPING[model_type]())
    return _ready(transformers.AutoModelForImageTextToText.from_config(config), model_type)


def text_draft(target: Any) -> Any:
    """A causal language model with the weights of ``target``'s text part."""
    config = copy.deepcopy(target.config.get_text_config(decoder=True))
    draft = transformers.AutoModelForCausalLM.from_config(config).eval()
    draft.get_decoder().load_state_dict(target.get_decoder().state_dict())
    draft.get_output_embeddings().load_state_dict(target.get_output_embeddings().state_dict())
    return draft


def _ready(model: Any, model_type: str) -> Any:
    """``model`` with its weights, and nothing that ends a text before its length."""
    _seeded(model.eval(), *SEEDS.get(model_type, (2.0, 0)))
    settings = model.generation_config
    settings.eos_token_id = settings.forced_eos_token_id = None
    settings.pad_token_id, settings.use_cache = 0, True
    return model
