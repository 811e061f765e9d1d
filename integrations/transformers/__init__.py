"""Adaptive speculation length inside ``model.generate(assistant_model=...)`` of Hugging Face transformers."""

from speckv.integrations.transformers.attach import attach
from speckv.integrations.transformers.calibrate import calibrate
from speckv.integrations.transformers.hook import attach_policy, detach, stats

__all__ = ["attach", "attach_policy", "calibrate", "detach", "stats"]
