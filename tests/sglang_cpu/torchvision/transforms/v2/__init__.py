from .. import InterpolationMode
from . import functional

__all__ = ["InterpolationMode", "functional"]
