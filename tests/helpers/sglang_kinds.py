"""Kinds of request that a server has to answer as it does without speculation, and what of an answer is compared."""

from __future__ import annotations

import json
from math import isclose
from typing import Any

from sglang_models import requests

PROMPT = requests(1, seed=20)[0][0]
OTHER = requests(1, seed=21)[0][0]
LONG = (PROMPT * 40)[:300]
SCHEMA = {"type": "object", "properties": {"a": {"enum": ["x", "yy"]}}, "required": ["a"]}
CHAT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is the sea?"}]


def generate(ids: Any = PROMPT, sampling: dict[str, Any] | None = None, **body: Any) -> tuple[str, dict[str, Any]]:
    """A request to /generate; 24 greedy tokens, unless ``sampling`` says otherwise."""
    settings = {"temperature": 0, "max_new_tokens": 24, "ignore_eos": True, **(sampling or {})}
    asked = {} if "text" in body else {"input_ids": ids}
    return "/generate", {**asked, "sampling_params": settings, **body}


def chat(**body: Any) -> tuple[str, dict[str, Any]]:
    return "/v1/chat/completions", {
        "model": "default",
        "messages": CHAT,
        "temperature": 0,
        "max_tokens": 20,
        **body,
    }


def completion(**body: Any) -> tuple[str, dict[str, Any]]:
    return "/v1/completions", {
        "model": "default",
        "prompt": "The sea is",
        "temperature": 0,
        "max_tokens": 20,
        **body,
    }


KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "greedy": generate(),
    "one token": generate(sampling={"max_new_tokens": 1}),
    "two tokens": generate(sampling={"max_new_tokens": 2}),
    "no token": generate(sampling={"max_new_tokens": 0}),
    "a prompt of one token": generate([7]),
    "a prompt in several chunks": generate(LONG),
    "as text": generate(text="The sea is blue and"),
    "several prompts": generate([PROMPT, OTHER, [9, 10, 11]]),
    "several prompts with parameters of their own": generate(
        [PROMPT, OTHER],
        sampling_params=[
            {"temperature": 0, "max_new_tokens": 9, "ignore_eos": True},
            {"temperature": 0, "max_new_tokens": 30, "ignore_eos": True},
        ],
    ),
    "until it ends": generate(sampling={"ignore_eos": False, "max_new_tokens": 80}),
    "no end before": generate(sampling={"ignore_eos": False, "min_new_tokens": 30, "max_new_tokens": 40}),
    "an end soon after": generate(
        sampling={"min_new_tokens": 5, "stop_token_ids": list(range(3, 120)), "max_new_tokens": 40}
    ),
    "a penalty of frequent tokens": generate(sampling={"frequency_penalty": 1.5, "max_new_tokens": 60}),
    "a penalty of tokens that are there": generate(sampling={"presence_penalty": 1.5, "max_new_tokens": 60}),
    "a penalty of repetition": generate(sampling={"repetition_penalty": 1.6, "max_new_tokens": 60}),
    "a penalty of one of two": generate(
        [PROMPT, OTHER],
        sampling_params=[
            {"temperature": 0, "max_new_tokens": 40, "ignore_eos": True, "frequency_penalty": 1.5},
            {"temperature": 0, "max_new_tokens": 60, "ignore_eos": True},
        ],
    ),
    "a stop string": generate(sampling={"stop": ["e", "a", "t"]}),
    "a stop string that is kept": generate(sampling={"stop": ["e", "a", "t"], "no_stop_trim": True}),
    "a stop expression": generate(sampling={"stop_regex": "[a-m]"}),
    "stop tokens": generate(sampling={"stop_token_ids": list(range(40, 60))}),
    "special tokens shown": generate(sampling={"skip_special_tokens": False, "ignore_eos": False}),
    "the likeliest by top-k": generate(sampling={"temperature": 1.0, "top_k": 1}),
    "top-p of a greedy request": generate(sampling={"top_p": 0.3}),
    "min-p of a greedy request": generate(sampling={"min_p": 0.3}),
    "a bias": generate(sampling={"logit_bias": {"70": 8.0, "71": -8.0}}),
    "logprobs": generate(return_logprob=True),
    "logprobs of the prompt": generate(return_logprob=True, logprob_start_len=0),
    "several logprobs": generate(return_logprob=True, top_logprobs_num=3),
    "logprobs of given tokens": generate(return_logprob=True, token_ids_logprob=[5, 6, 7]),
    "logprobs with text": generate(return_logprob=True, return_text_in_logprobs=True),
    "a schema": generate(sampling={"json_schema": json.dumps(SCHEMA), "ignore_eos": False, "max_new_tokens": 60}),
    "an expression": generate(sampling={"regex": "(ab|cd){3,6}x", "ignore_eos": False}),
    "a grammar": generate(sampling={"ebnf": 'root ::= "yes" | "no" | root "," root', "ignore_eos": False}),
    "a chat": chat(),
    "a chat with logprobs": chat(logprobs=True, top_logprobs=2),
    "a chat that answers with JSON": chat(
        response_format={"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}}, max_tokens=60
    ),
    "a chat that stops": chat(stop=["e", "a"]),
    "a completion": completion(),
    "a completion after its prompt": completion(echo=True),
    "two completions": completion(n=2),
}

SAID = frozenset(
    {
        *("text", "output_ids", "finish_reason", "content", "message", "matched_stop", "choices", "meta_info", "role"),
        *("prompt_tokens", "completion_tokens", "total_tokens", "usage", "type", "length", "matched", "index"),
        *("output_token_logprobs", "input_token_logprobs", "output_top_logprobs", "input_top_logprobs"),
        *("output_token_ids_logprobs", "logprobs", "top_logprobs", "token", "logprob"),
    }
)
"""Keys of an answer that do not depend on the server or the moment."""


class Near(float):
    """Equal to what is 0.0001 off at most: rounded, two that are next to nothing apart may be a digit apart."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, float) and isclose(self, other, rel_tol=0.0, abs_tol=1e-4)

    __hash__ = None  # type: ignore[assignment]


def said(answer: Any) -> Any:
    """``answer`` without what differs between any two servers; a logprob equals one that is near."""
    if isinstance(answer, dict):
        return {key: said(value) for key, value in answer.items() if key in SAID}
    if isinstance(answer, list):
        return [said(one) for one in answer]
    return Near(answer) if isinstance(answer, float) else answer
