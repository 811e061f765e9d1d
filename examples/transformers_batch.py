"""Several prompts in one `generate`: each accepts as many drafted tokens as are right for it.

    python examples/transformers_batch.py
    python examples/transformers_batch.py --pair TARGET,DRAFT "A prompt" "Another one" "A third"

Without `--pair` it is the pair of `make demo`, downloaded once (1.6 GB).
"""

from __future__ import annotations

import argparse

import torch

from speckv.integrations.models import load_pair
from speckv.integrations.transformers import attach, stats

PROMPTS = ["Write a Python function that reverses a list.", "What is a prime number?", "Name the planets in order."]

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("prompts", nargs="*", default=PROMPTS)
parser.add_argument("--pair", default="default")
parser.add_argument("--compression", default="bf16", help="of both models; fp32 on a CPU without bf16 instructions")
parser.add_argument("--tokens", type=int, default=96, help="at most, of an answer")
options = parser.parse_args()

device = "cuda" if torch.cuda.is_available() else "cpu"
target, draft, tokenizer = load_pair(options.pair, options.compression, options.compression, device)
attach(target, draft)

# Padding belongs at the left, where the draft is not misled by it.
tokenizer.padding_side = "left"
if tokenizer.pad_token is None:
    tokenizer.pad_token = tokenizer.eos_token
chats = [[{"role": "user", "content": prompt}] for prompt in options.prompts]
inputs = tokenizer.apply_chat_template(
    chats, add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True
).to(device)
output = target.generate(
    **inputs,
    assistant_model=draft,
    max_new_tokens=options.tokens,
    do_sample=False,
    pad_token_id=tokenizer.pad_token_id,
)

answers = tokenizer.batch_decode(output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
for prompt, answer in zip(options.prompts, answers, strict=True):
    print(f"# {prompt}\n{answer}\n")
did = stats(target)
print(f"[{did.emitted} tokens, {did.tokens_per_verify:.2f} of each prompt by a forward of the target]")
print(f"[{did.accepted} of {did.drafted} drafted tokens accepted; rounds by γ: {dict(sorted(did.gammas.items()))}]")
