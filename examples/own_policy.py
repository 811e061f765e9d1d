"""A policy of your own in a page: how many tokens a round drafts, compared with SpecKV's own policy.

    python examples/own_policy.py
    python examples/own_policy.py --pair TARGET,DRAFT --prompt "Write a haiku about the sea."

docs/extending.md says what a policy may ask and know. No policy can change the output, only how fast it comes.
"""

from __future__ import annotations

import argparse
from time import perf_counter

import torch

from speckv.controller.policy import Policy, Round
from speckv.integrations.models import load_pair
from speckv.integrations.transformers import attach, detach, stats


class Follow(Policy):
    """Draft a token more than was accepted the last time, and stop earlier where the draft itself is unsure."""

    per_level = True  # ask deepen after every drafted token, not only after the first
    ceiling = 4

    def begin(self, this: Round, room: int) -> int:
        return min(self.ceiling, room)

    def deepen(self, this: Round) -> int:
        confidence = this.levels[-1][:, 1].min()  # the draft's probability of its best token, of the least sure request
        return self.ceiling if confidence > 0.4 else len(this.levels)

    def observe(self, this: Round) -> None:
        if this.gamma:
            self.ceiling = min(max(this.accepted) + 1, 8)


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--prompt", default="Write a Python class for a stack, with push, pop and peek.")
parser.add_argument("--pair", default="default", help="without, that of `make demo`, downloaded once (1.6 GB)")
parser.add_argument("--compression", default="bf16", help="of both models; fp32 on a CPU without bf16 instructions")
parser.add_argument("--tokens", type=int, default=96, help="at most")
options = parser.parse_args()

device = "cuda" if torch.cuda.is_available() else "cpu"
target, draft, tokenizer = load_pair(options.pair, options.compression, options.compression, device)
chat = [{"role": "user", "content": options.prompt}]
inputs = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
inputs = inputs.to(device)

for name, policy in (("Follow", Follow()), ("SpecKV", None)):
    attach(target, draft, policy=policy)  # None: SpecKV's own
    target.generate(**inputs, assistant_model=draft, max_new_tokens=8, do_sample=False)  # the first call is slow
    stats(target, reset=True)
    start = perf_counter()
    target.generate(**inputs, assistant_model=draft, max_new_tokens=options.tokens, do_sample=False)
    seconds = perf_counter() - start
    did = stats(target)
    print(f"{name}: {did.emitted / seconds:.1f} tokens/s, {did.tokens_per_verify:.2f} by a forward of the target")
    print(f"  {did.accepted} of {did.drafted} drafted accepted; rounds by γ: {dict(sorted(did.gammas.items()))}")
    detach(target)
