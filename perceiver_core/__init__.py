"""Perceiver IO in PyTorch: Hugging Face's names and checkpoints, an interface that encodes once and decodes many times.

Importing the package is cheap: torch is imported when a name that needs it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from perceiver_core.checkpoint import CheckpointError as CheckpointError
    from perceiver_core.config import PerceiverConfig as PerceiverConfig
    from perceiver_core.flow import estimate_flow as estimate_flow
    from perceiver_core.flow import frame_patches as frame_patches
    from perceiver_core.heads import PerceiverForMultimodalAutoencoding as PerceiverForMultimodalAutoencoding
    from perceiver_core.images import PerceiverFeatureExtractor as PerceiverFeatureExtractor
    from perceiver_core.images import PerceiverImageProcessor as PerceiverImageProcessor
    from perceiver_core.images import PerceiverImageProcessorFast as PerceiverImageProcessorFast
    from perceiver_core.images import PerceiverImageProcessorPil as PerceiverImageProcessorPil
    from perceiver_core.model import PerceiverModel as PerceiverModel
    from perceiver_core.output_points import OutputPoints as OutputPoints

_FILE = {
    "CheckpointError": "checkpoint",
    "OutputPoints": "output_points",
    "PerceiverConfig": "config",
    "PerceiverFeatureExtractor": "images",
    "PerceiverForMultimodalAutoencoding": "heads",
    "PerceiverImageProcessor": "images",
    "PerceiverImageProcessorFast": "images",
    "PerceiverImageProcessorPil": "images",
    "PerceiverModel": "model",
    "estimate_flow": "flow",
    "frame_patches": "flow",
}


def __getattr__(name: str) -> Any:
    if name not in _FILE:
        raise AttributeError(f"module 'perceiver_core' has no attribute {name!r}")
    return getattr(import_module(f"perceiver_core.{_FILE[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_FILE])
