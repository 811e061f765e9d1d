"""Adaptive speculation length in SGLang: the algorithm ``SPECKV`` of ``--speculative-algorithm``.

SGLang loads :func:`speckv.integrations.sglang.plugin.register` by itself (entry point group ``sglang.srt.plugins``).
"""
