"""A model's int8 and nf4 weights in a folder: what a server loads is what transformers would have quantised."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from sglang_models import save_pair
from transformers import AutoModelForCausalLM

from speckv.integrations.compression import detect_level
from speckv.integrations.models.compressed import FROM, compressed_folder
from speckv.integrations.models.loading import load_model


@pytest.mark.parametrize(("compression", "level"), [("int8", 1), ("nf4", 2)])
def test_the_folder_holds_what_is_quantised_at_loading(tmp_path: Path, compression: str, level: int) -> None:
    target, _ = save_pair(tmp_path)
    folder = compressed_folder(str(target), compression, root=tmp_path / "made")
    saved = AutoModelForCausalLM.from_pretrained(folder, device_map="cpu", dtype=torch.bfloat16)
    assert detect_level(saved.config) == level and (folder / "tokenizer.json").exists()
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.inference_mode():
        wanted, got = (model(input_ids=ids).logits for model in (load_model(str(target), compression), saved))
    torch.testing.assert_close(got, wanted)


def test_it_is_made_once_and_anew_when_its_source_changes(tmp_path: Path) -> None:
    target, _ = save_pair(tmp_path)
    told: list[str] = []

    def make() -> Path:
        return compressed_folder(str(target), "nf4", lambda what, *_: told.append(what), tmp_path / "made")

    folder = make()
    leftover = folder.with_name(f"{folder.name}.converting")
    leftover.mkdir()  # of a run that was killed
    assert make() == folder and len(told) == 2
    (folder / FROM).unlink()
    assert make() == folder and len(told) == 4 and not leftover.exists()
    (target / "config.json").write_text((target / "config.json").read_text() + "\n")
    assert make() == folder and len(told) == 6
