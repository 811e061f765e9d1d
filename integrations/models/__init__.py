"""Models: named pairs, where their weights come from, and how they are loaded at a compression level."""

from speckv.integrations.models.loading import COMPRESSIONS, load_model, load_pair, perturbed, resolve

__all__ = ["COMPRESSIONS", "load_model", "load_pair", "perturbed", "resolve"]
