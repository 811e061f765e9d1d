"""Controllers on the Hugging Face hub: fetched by name, and published from a folder."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from speckv.controller.errors import SpecKVError
from speckv.controller.extras import missing
from speckv.export.artefact import Artefact
from speckv.export.exchange import FILES, open_controller, save_folder
from speckv.export.files import brief, present


def fetch(name: str | Path, **options: Any) -> Artefact:
    """The controller in a folder, or in the hub repository called ``name`` (``owner/repository``).

    Of a repository only FILES are fetched, never a pickle, into the hub's cache, from where it is read when
    ``HF_HUB_OFFLINE`` is set. ``options`` go to ``huggingface_hub.snapshot_download``: ``revision``, ``token``,
    ``cache_dir``, ``local_files_only``, ``force_download``.
    """
    if present(Path(name)):
        return open_controller(Path(name))
    hub = _hub()
    try:
        folder = hub.snapshot_download(str(name), allow_patterns=list(FILES), library_name="speckv", **options)
    except Exception as error:  # the hub's, httpx's and the disk's errors share no base class
        reason = brief(error, 120)
        raise SpecKVError(f"{name}: no such folder, nor could it be fetched from the hub ({reason})") from None
    return open_controller(Path(folder))


def publish(
    artefact: Artefact,
    repo_id: str,
    *,
    commit_message: str = "Upload a SpecKV controller",
    private: bool | None = None,
    token: str | None = None,
    revision: str | None = None,
) -> str:
    """Create ``repo_id`` unless it is there, upload what ``save_folder`` writes in one commit, and return its URL."""
    hub = _hub()
    try:
        api = hub.HfApi(token=token, library_name="speckv")
        created = api.create_repo(repo_id, private=private, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            save_folder(artefact, Path(folder))
            commit = api.upload_folder(
                repo_id=created.repo_id, folder_path=folder, commit_message=commit_message, revision=revision
            )
    except SpecKVError:
        raise
    except Exception as error:  # as in fetch
        raise SpecKVError(f"{repo_id}: could not be published ({brief(error, 120)}); try `hf auth login`") from None
    return str(commit.commit_url)


def _hub() -> Any:
    try:
        import huggingface_hub
    except ImportError:
        raise SpecKVError(missing("huggingface_hub")) from None
    return huggingface_hub
