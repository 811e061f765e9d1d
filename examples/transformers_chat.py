"""Chat with a pair of models in transformers, and see after every answer what speculation did.

    python examples/transformers_chat.py
    python examples/transformers_chat.py --pair TARGET,DRAFT    # hub ids or folders, with one tokenizer

An empty line ends it. Without `--pair` it is the pair of `make demo`, downloaded once (1.6 GB).
"""

from __future__ import annotations

import argparse

import torch
from transformers import TextStreamer

from speckv.integrations.models import load_pair
from speckv.integrations.transformers import attach, stats

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--pair", default="default")
parser.add_argument("--compression", default="bf16", help="of both models; fp32 on a CPU without bf16 instructions")
parser.add_argument("--tokens", type=int, default=256, help="at most, of an answer")
options = parser.parse_args()

device = "cuda" if torch.cuda.is_available() else "cpu"
# Models that you have loaded yourself, with from_pretrained, do as well.
target, draft, tokenizer = load_pair(options.pair, options.compression, options.compression, device)
attach(target, draft)

streamer = TextStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True)
history: list[dict[str, str]] = []
while question := input("\nyou> ").strip():
    history.append({"role": "user", "content": question})
    inputs = tokenizer.apply_chat_template(history, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    inputs = inputs.to(device)
    output = target.generate(**inputs, assistant_model=draft, streamer=streamer, max_new_tokens=options.tokens)
    answer = output[0, inputs["input_ids"].shape[1] :]
    history.append({"role": "assistant", "content": tokenizer.decode(answer, skip_special_tokens=True)})

    did = stats(target, reset=True)
    print(f"[{did.emitted} tokens by {did.rounds} forwards of the target: {did.tokens_per_verify:.2f} each]")
    print(f"[{did.accepted} of {did.drafted} drafted tokens accepted; rounds by γ: {dict(sorted(did.gammas.items()))}]")
