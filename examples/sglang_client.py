"""Ask a running server with SPECKV through the OpenAI library: a streamed answer, and what each round drafted.

    pip install openai
    python -m sglang.launch_server --model-path TARGET --speculative-algorithm SPECKV \
      --speculative-draft-model-path DRAFT
    python examples/sglang_client.py "Write a Python function that reverses a list."
"""

from __future__ import annotations

import argparse

from openai import APIConnectionError, OpenAI

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("prompt", nargs="?", default="Write a Python function that reverses a list.")
parser.add_argument("--url", default="http://localhost:30000", help="of the server")
parser.add_argument("--api-key", default="none", help="where the server was started with one")
parser.add_argument("--tokens", type=int, default=128, help="at most")
options = parser.parse_args()

client = OpenAI(base_url=f"{options.url}/v1", api_key=options.api_key)
try:
    model = client.models.list().data[0].id
except APIConnectionError:
    raise SystemExit(f"no server answers at {options.url}; --help says how to start one") from None
question = {
    "model": model,
    "messages": [{"role": "user", "content": options.prompt}],
    "max_tokens": options.tokens,
    "temperature": 0,  # it is asked twice, for one answer
}

# In a stream SGLang tells the totals at its end, if asked to.
extra = {"return_spec_tokens_details": True}
for chunk in client.chat.completions.create(**question, stream=True, extra_body=extra):
    if chunk.choices:
        print(chunk.choices[0].delta.content or "", end="", flush=True)
    elif totals := (getattr(chunk, "sglext", None) or {}).get("spec_tokens_details"):
        print(f"\n[{totals['spec_verify_ct']} forwards of the target, {totals['spec_accept_length']:.2f} tokens each]")

# What SPECKV did in every round comes with an answer that is not streamed.
answer = client.chat.completions.create(**question, extra_body={"return_meta_info": True})
facts = getattr(answer.choices[0], "meta_info", None) or {}
for name in ("speckv_gamma", "speckv_siblings", "speckv_sibling_hit"):
    print(f"{name}: {[of_round for of_round in facts.get(name, ()) if of_round is not None]}")
