"""A model's weights as int8 or nf4 in a folder, for a server that loads only weights that are quantised already."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

from speckv.controller.files import write_whole
from speckv.integrations.installed import version
from speckv.integrations.models.loading import load_model, load_tokenizer
from speckv.integrations.models.mirrored import Progress, cache_dir, require_space

LARGEST_SHARE = 0.75
"""Of the dense weights' bytes: embeddings stay dense, and int8 has half of the rest."""

FROM = "FROM.json"
"""What the folder was made from; written last, so a folder without it was not finished."""


def compressed_folder(
    source: str, compression: str, progress: Progress = lambda *_: None, root: Path | None = None
) -> Path:
    """The folder with ``source`` (a hub id or folder) quantised by bitsandbytes to ``compression``, int8 or nf4.

    Made once in ``root`` (the user's cache), anew when the source's files or bitsandbytes' version change.
    """
    files = _files(source)
    made_from = {"source": source, "files": files, "compression": compression, "bitsandbytes": version("bitsandbytes")}
    name = hashlib.sha256(json.dumps([source, compression]).encode()).hexdigest()[:12]
    folder = (root or cache_dir() / "compressed") / f"{Path(source).name}-{compression}-{name}"
    if (folder / FROM).exists() and json.loads((folder / FROM).read_text(encoding="utf-8")) == made_from:
        return folder
    require_space(folder.parent, int(LARGEST_SHARE * sum(size for size, _ in files.values())))
    progress(f"quantise {Path(source).name} to {compression}", 0, 1)
    temporary = folder.with_name(f"{folder.name}.converting")
    shutil.rmtree(temporary, ignore_errors=True)
    load_model(source, compression).save_pretrained(temporary)
    load_tokenizer(source).save_pretrained(temporary)
    write_whole(temporary / FROM, json.dumps(made_from, indent=1))
    shutil.rmtree(folder, ignore_errors=True)
    temporary.replace(folder)
    progress(f"quantise {Path(source).name} to {compression}", 1, 1)
    return folder


def _files(source: str) -> dict[str, list[int]]:
    """Sizes and times of a folder's files, which tell that it has changed; of a hub id nothing is known."""
    folder = Path(source)
    if not folder.is_dir():
        return {}
    return {found.name: [found.stat().st_size, found.stat().st_mtime_ns] for found in sorted(folder.iterdir())}
