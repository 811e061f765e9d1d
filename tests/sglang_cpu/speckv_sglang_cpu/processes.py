"""``SPECKV_TEST_FORK`` has a server fork its processes, each of which would else import torch and SGLang again.

That is more than half of what a start takes. Where there is CUDA, processes start as SGLang has them, and so do those
that a forked one starts: what it runs by then, such as the threads of its sockets, does not survive a fork.
"""

from __future__ import annotations

import multiprocessing
import os

import torch

NAME = "SPECKV_TEST_FORK"


def register() -> None:
    if os.environ.get(NAME) and not torch.cuda.is_available():
        choose = multiprocessing.set_start_method

        def fork(method: str, force: bool = False) -> None:
            choose("fork", force)

        multiprocessing.set_start_method = fork
        os.register_at_fork(after_in_child=lambda: choose("spawn", True))
