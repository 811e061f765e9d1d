"""``SPECKV_TEST_FORK`` has a server fork its processes, each of which would else import torch and SGLang again.

That is more than half of what a start takes. Where there is CUDA, processes start as SGLang has them.
"""

from __future__ import annotations

import multiprocessing
import os

import torch

NAME = "SPECKV_TEST_FORK"


def register() -> None:
    if os.environ.get(NAME) and not torch.cuda.is_available():
        choose = multiprocessing.set_start_method
        multiprocessing.set_start_method = lambda method, force=False: choose("fork", force)
