"""`python -m speckv.benchmarks.eagle3`: a test-grade EAGLE-3 head for a small Llama, trained on what it says."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from speckv.benchmarks.bench.heads import trained
from speckv.benchmarks.cli.app import prepare_torch
from speckv.benchmarks.common.command import JsonFile, make_app, run, show_and_store
from speckv.benchmarks.common.machine import lacks_bf16, machine, versions
from speckv.benchmarks.common.progress import progress
from speckv.benchmarks.eagle3.head import Head
from speckv.benchmarks.eagle3.judged import judged
from speckv.benchmarks.eagle3.training import SHARD, Said, accepted, said, train, vocabulary
from speckv.benchmarks.prompts import load_prompts
from speckv.controller.errors import SpecKVError
from speckv.controller.files import write_whole
from speckv.integrations.models.loading import load_model, load_tokenizer, resolve
from speckv.integrations.runtime import Controller

HELD = 16
"""Of so many prompts one is held out."""

app = make_app()


@app.command()
def eagle3(
    folder: Annotated[
        Path | None,
        typer.Argument(help="For the head, and what it is made of; by default where speckv bench looks for it."),
    ] = None,
    pair: Annotated[str, typer.Option(help="Whose target it is for: a Llama, such as smollm2's.")] = "smollm2",
    tokens: Annotated[int, typer.Option(help="New tokens of each sequence that the target says.", min=16)] = 192,
    sequences: Annotated[int, typer.Option(help="How many it says.", min=SHARD * 2)] = 512,
    steps: Annotated[int, typer.Option(help="Of training.", min=1)] = 400,
    size: Annotated[int, typer.Option(help="Sequences in a step.", min=1)] = 8,
    words: Annotated[int, typer.Option(help="Tokens that the head knows.", min=64)] = 4096,
    json_file: JsonFile = None,
    threads: Annotated[int, typer.Option(help="Threads for the models; 0 takes all cores.")] = 0,
) -> None:
    """Train an EAGLE-3 head on what the target says after the training prompts, and store it as SGLang serves it.

    Its text, weights and moments are kept in FOLDER as they grow, so an interrupted run goes on. What is said after
    every sixteenth prompt is left out of training: it says what is accepted, and how well the shipped controller
    knows that.
    """
    prepare_torch(threads)
    if folder is None and "," in pair:
        raise SpecKVError(f"{pair}: a pair without a name; say the folder that the head is for")
    folder = folder or trained(pair)
    settings = {"pair": pair, "tokens": tokens, "sequences": sequences, "steps": steps, "size": size, "words": words}
    _begun(folder / "settings.json", settings)
    source = resolve(pair).target
    target, tokenizer = load_model(source, "fp32" if lacks_bf16() else "bf16"), load_tokenizer(source)
    if target.config.model_type != "llama" or target.config.num_hidden_layers < 4:
        raise SpecKVError(f"{source}: not a Llama of four layers or more, which this trainer is for")
    prompts = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": one.text}], add_generation_prompt=True, return_dict=False
        )
        for one in load_prompts("train")
    ]
    prompts = [ids for ids in prompts if len(ids) <= 256]
    with progress() as report:
        told = said(target, prompts, tokens, folder, -(-sequences // SHARD), report)
        parts: dict[bool, list[Said]] = {True: [], False: []}
        for number, one in enumerate(told):
            parts[number % len(prompts) % HELD == 0].append(one)
        held, kept = parts[True], parts[False]
        torch.manual_seed(0)
        head = Head.of(target, vocabulary(kept, min(words, target.config.vocab_size)))
        loss = train(target, head, kept, folder / "training.safetensors", steps, size, report)
    head.save(folder)
    show_and_store(
        {
            "command": " ".join(["python -m speckv.benchmarks.eagle3", *sys.argv[1:]]),
            "settings": settings,
            "trained_parameters": sum(value.numel() for value in head.parameters()),
            "loss": loss,
            "said_tokens": sum(len(one.ids) - one.start for one in told),
            "held_prompts": sum(at % HELD == 0 for at in range(len(prompts))),
            "accepted": accepted(target, head, held),
            "controller": judged(target, head, held, Controller.load()),
            "machine": machine(),
            "versions": versions(),
        },
        json_file,
    )


def _begun(file: Path, settings: dict[str, Any]) -> None:
    """Say in ``file`` what its folder is of; SpecKVError if it is of something else."""
    said = json.dumps(settings, indent=1) + "\n"
    if file.exists() and file.read_text(encoding="utf-8") != said:
        raise SpecKVError(f"{file.parent}: was begun with other settings ({file}); name another folder")
    write_whole(file, said)


if __name__ == "__main__":
    run(app)
