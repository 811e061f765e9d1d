"""A hub id that cannot be had is one line within seconds; one that is cached is loaded without the hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub.errors import RepositoryNotFoundError
from sglang_models import save_pair

from speckv.controller.errors import SpecKVError
from speckv.integrations.models import loading
from speckv.integrations.models.loading import at_hand, load_model, load_pair, load_tokenizer, resolve


class NotFoundError(RepositoryNotFoundError):
    """Without the answer that it is made of."""

    def __init__(self) -> None:
        Exception.__init__(self, "401 Client Error")


@pytest.fixture(autouse=True)
def forgotten() -> None:
    """What the hub said in another test."""
    loading._on_hub.cache_clear()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Ids that the hub was asked for; it knows a/known and b/known."""
    made: list[str] = []

    def model_info(self: Any, name: str, *, timeout: float) -> None:
        made.append(name)
        assert timeout <= 10
        if not name.endswith("/known"):
            raise NotFoundError

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", model_info)
    return made


@pytest.fixture
def unreachable(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    made: list[str] = []

    def model_info(self: Any, name: str, **_: Any) -> None:
        made.append(name)
        raise ConnectionError("no name service")

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", model_info)
    monkeypatch.setattr(loading.AutoModelForCausalLM, "from_pretrained", lambda *_, **__: pytest.fail("asked again"))
    return made


def test_what_the_hub_does_not_know_is_said_before_anything_is_loaded(asked: list[str]) -> None:
    with pytest.raises(SpecKVError, match=r"^x/typo: no such folder, and no such repository on the hub; mend the name"):
        load_pair("a/known,x/typo")
    assert asked == ["a/known", "x/typo"]
    for _ in range(2):
        resolve("a/known,b/known").check()
    assert asked == ["a/known", "x/typo", "b/known"]


def test_what_is_no_id_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for load in (load_model, load_tokenizer, at_hand):
        with pytest.raises(SpecKVError, match=r"^no id!: neither a folder nor a hub id; give one of them$"):
            load("no id!")
    with pytest.raises(SpecKVError, match="one of the two is missing; give TARGET,DRAFT"):
        resolve("a/known,")


def test_where_the_hub_is_out_of_reach_it_is_asked_once(unreachable: list[str]) -> None:
    with pytest.raises(SpecKVError) as error:
        load_model("a/known")
    assert "not in the hub's cache, and the hub cannot be reached; give a folder" in str(error.value)
    assert unreachable == ["a/known"] and "\n" not in str(error.value)


def test_what_is_cached_is_loaded_without_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target, _ = save_pair(tmp_path)

    def model_info(self: Any, name: str, **_: Any) -> None:
        raise ConnectionError("no name service")

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", model_info)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, local_files_only: str(target))
    model = load_model("a/known", "fp32")
    assert model.config.name_or_path == "a/known"  # so that its costs are those of the id
    assert load_tokenizer("a/known")("to be")["input_ids"]


def test_a_folder_is_loaded_without_a_question(tmp_path: Path, unreachable: list[str]) -> None:
    (tmp_path / "folder").mkdir()
    assert at_hand(str(tmp_path / "folder")) == str(tmp_path / "folder") and not unreachable
    with pytest.raises(SpecKVError, match="its tokenizer: cannot be loaded"):
        load_tokenizer(str(tmp_path / "folder"))
