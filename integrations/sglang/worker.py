"""The workers that SGLang starts: for a separate draft model, and for a head of the target."""

from __future__ import annotations

from sglang.srt.speculative import eagle_worker_v2, standalone_worker_v2
from sglang.srt.speculative.standalone_worker_v2 import StandaloneWorkerV2

from speckv.integrations.sglang.config import Config, read_config, read_head_config
from speckv.integrations.sglang.draft_worker import SpecKVDraftWorker
from speckv.integrations.sglang.head_draft_worker import HeadDraftWorker
from speckv.integrations.sglang.rounds import Rounds


class SpecKVWorker(Rounds, StandaloneWorkerV2):
    """For ``SPECKV``: a separate draft model."""

    drafts = (standalone_worker_v2, "StandaloneDraftWorker", SpecKVDraftWorker)

    def read_config(self, path: str | None) -> Config:
        return read_config(path)


class HeadWorker(Rounds):
    """For ``EAGLE``, ``EAGLE3`` and ``NEXTN`` with an object "speckv" in their adaptive configuration."""

    drafts = (eagle_worker_v2, "EagleDraftWorker", HeadDraftWorker)

    def read_config(self, path: str | None) -> Config:
        return read_head_config(path) or Config()
