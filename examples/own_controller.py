"""A controller of your own: profile a pair, train on the records, and generate with what was learnt.

    python examples/own_controller.py                       # minutes, on the pair of `make demo`
    python examples/own_controller.py --pair TARGET,DRAFT

These few records show the way. For one that pays take the defaults of `speckv profile`, and add `speckv trace`:
docs/tutorial.md. The commands `speckv profile` and `speckv train` do what is done here.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from speckv.benchmarks.collect.profile import profile
from speckv.benchmarks.prompts import load_prompts
from speckv.export.build import build
from speckv.integrations.models import load_pair
from speckv.integrations.transformers import attach, stats

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--pair", default="default", help="without, that of `make demo`, downloaded once (1.6 GB)")
parser.add_argument("--compression", default="bf16", help="of both models; fp32 on a CPU without bf16 instructions")
parser.add_argument("--per-task", type=int, default=4, help="prompts of each of the four tasks")
parser.add_argument("--tokens", type=int, default=24, help="of each prompt")
parser.add_argument("--out", type=Path, default=Path("mine.onnx"), help="the controller; its records lie beside it")
options = parser.parse_args()
both = {"loads": (options.compression,), "draft_load": options.compression}

# 1. Speculate with fixed γ, and write a record a round: the draft's signals, and how many tokens were accepted.
records = options.out.with_suffix(".parquet")
count = profile(records, load_prompts("train"), options.pair, **both, per_task=options.per_task, tokens=options.tokens)
print(f"{records}: {count} records")

# 2. Train, and write one ONNX file, checked against what was trained.
controller = build(records, options.out)
print(f"{options.out}: {controller.metadata.training['metrics']}")

# 3. Attach it.
device = "cuda" if torch.cuda.is_available() else "cpu"
target, draft, tokenizer = load_pair(options.pair, options.compression, options.compression, device)
attach(target, draft, controller=options.out)
inputs = tokenizer("def fibonacci(n):", return_tensors="pt").to(device)
output = target.generate(**inputs, assistant_model=draft, max_new_tokens=64, do_sample=False)
print(tokenizer.decode(output[0], skip_special_tokens=True))
did = stats(target)
print(f"[{did.accepted} of {did.drafted} drafted tokens accepted; rounds by γ: {dict(sorted(did.gammas.items()))}]")
