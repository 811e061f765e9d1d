"""Attention on a CPU for verify and draft: SGLang's ``torch_native`` backend knows neither."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention


def _single(runner: Any, step: int | None = None) -> Any:
    """The backend of one forward; ``step`` is the place in the draft loop, None outside it."""
    from sglang.srt.layers.attention.torch_native_backend import TorchNativeAttnBackend
    from sglang.srt.mem_cache.memory_pool import KVWriteLoc

    class TreeAttention(TorchNativeAttnBackend):  # type: ignore[misc]
        def init_forward_metadata(self, batch: Any) -> None:
            """Per request: its rows, the KV slots they see, and the mask where they do not see all."""
            super().init_forward_metadata(batch)
            self.plan: list[tuple[int, int, Tensor, Tensor | None, bool]] = []
            mode = batch.forward_mode
            if mode.is_idle():
                return
            lengths = batch.seq_lens.tolist()
            if mode.is_decode():
                fed = [1] * len(lengths)
                seen = [length + (0 if step is None else step + 1) for length in lengths]
            elif mode.is_target_verify():  # seq_lens is the committed prefix
                fed = [batch.spec_info.draft_token_num] * len(lengths)
                seen = [length + fed[0] for length in lengths]
            else:
                fed, seen = [int(count) for count in batch.extend_seq_lens.tolist()], lengths
            slots = self.req_to_token_pool.req_to_token
            start = 0
            for number, (row, count, length) in enumerate(zip(batch.req_pool_indices.tolist(), fed, seen, strict=True)):
                mask = None
                if 1 < count < length:
                    mask = torch.arange(length) <= torch.arange(length - count, length)[:, None]
                    if mode.is_target_verify():  # SGLang's tree mask on a CPU has no columns for the prefix
                        own = batch.spec_info.custom_mask.view(-1)[number * count * count :][: count * count]
                        mask[:, length - count :] = own.view(count, count)
                self.plan.append((start, start + count, slots[row, :length].long(), mask, 1 < count == length))
                start += count

        def forward_extend(
            self, q: Tensor, k: Tensor, v: Tensor, layer: Any, batch: Any, save_kv_cache: bool = True, **unused: Any
        ) -> Tensor:
            if save_kv_cache and k is not None and v is not None:
                self.token_to_kv_pool.set_kv_buffer(
                    layer, KVWriteLoc(batch.out_cache_loc, self.swa_out_cache_loc), k, v
                )
            q = q.reshape(-1, layer.tp_q_head_num, layer.qk_head_dim)
            keys = self.token_to_kv_pool.get_key_buffer(layer.layer_id)
            values = self.token_to_kv_pool.get_value_buffer(layer.layer_id)
            out = q.new_empty((q.shape[0], layer.tp_q_head_num, layer.v_head_dim))
            for first, last, slots, mask, causal in self.plan:
                out[first:last] = scaled_dot_product_attention(
                    q[first:last].transpose(0, 1)[None],
                    keys[slots].to(q.dtype).transpose(0, 1)[None],
                    values[slots].to(q.dtype).transpose(0, 1)[None],
                    attn_mask=mask,
                    is_causal=causal,
                    scale=layer.scaling,
                    enable_gqa=layer.tp_q_head_num != layer.tp_k_head_num,
                )[0].transpose(0, 1)
            return out.reshape(q.shape[0], -1)

        forward_decode = forward_extend

    return TreeAttention(runner)


class DraftLoopAttention:
    """One backend per step of the draft loop, as the draft worker indexes them."""

    def __init__(self, runner: Any, topk: int, steps: int) -> None:
        if topk != 1:
            raise NotImplementedError("CPU attention: only chains (top-k 1)")
        self.topk, self.speculative_num_steps, self.device = topk, steps, runner.device
        self.attn_backends = [_single(runner, step) for step in range(steps - 1)]

    def init_forward_metadata(self, batch: Any) -> None:
        for backend in self.attn_backends:
            backend.init_forward_metadata(batch)

    def __getattr__(self, name: str) -> Any:
        from sglang.srt.layers.attention.base_attn_backend import AttentionBackend

        return getattr(AttentionBackend, name)


def register() -> None:
    from sglang.srt.utils import is_cpu

    if not is_cpu():
        return
    from sglang.srt.layers.attention.attention_registry import register_attention_backend
    from sglang.srt.plugins.hook_registry import HookRegistry, HookType

    def decode_backend(original: Any, factory: Any) -> Any:
        if factory.speculative_num_steps <= 1:
            return None
        return DraftLoopAttention(factory.draft_model_runner, factory.topk, factory.speculative_num_steps)

    def extend_backend(original: Any, factory: Any) -> Any:
        backend = _single(factory.draft_model_runner)
        backend.prefill_attention_backend_str = backend.decode_attention_backend_str = "torch_native"
        return backend

    factory = "sglang.srt.speculative.draft_utils.DraftBackendFactory."
    HookRegistry.register(factory + "create_decode_backend", decode_backend, HookType.AROUND)
    HookRegistry.register(factory + "create_draft_extend_backend", extend_backend, HookType.AROUND)
    register_attention_backend("torch_native")(_single)

    from speckv.integrations.sglang.backend import BRANCHING

    BRANCHING["torch_native"] = "TreeAttention"
