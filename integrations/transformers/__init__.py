"""Adaptive speculation length inside ``model.generate(assistant_model=...)`` of Hugging Face transformers."""

from speckv.integrations.transformers.hook import attach_policy, detach, stats

__all__ = ["attach_policy", "detach", "stats"]
