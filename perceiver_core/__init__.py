"""Perceiver IO in PyTorch: Hugging Face's names and checkpoints, an interface that encodes once and decodes many times.

Importing the package is cheap: torch is imported when a name that needs it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from perceiver_core.batch_encoding import BatchEncoding as BatchEncoding
    from perceiver_core.checkpoint import CheckpointError as CheckpointError
    from perceiver_core.config import PerceiverConfig as PerceiverConfig
    from perceiver_core.heads import PerceiverForMultimodalAutoencoding as PerceiverForMultimodalAutoencoding
    from perceiver_core.model import PerceiverModel as PerceiverModel
    from perceiver_core.output_points import OutputPoints as OutputPoints
    from perceiver_core.tokenizer import PerceiverTokenizer as PerceiverTokenizer

_FILE = {
    "BatchEncoding": "batch_encoding",
    "CheckpointError": "checkpoint",
    "OutputPoints": "output_points",
    "PerceiverConfig": "config",
    "PerceiverForMultimodalAutoencoding": "heads",
    "PerceiverModel": "model",
    "PerceiverTokenizer": "tokenizer",
}


def __getattr__(name: str) -> Any:
    if name not in _FILE:
        raise AttributeError(f"module 'perceiver_core' has no attribute {name!r}")
    return getattr(import_module(f"perceiver_core.{_FILE[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_FILE])
