"""Perceiver IO in PyTorch: Hugging Face's names and checkpoints, an interface that encodes once and decodes many times.

Importing the package is cheap: torch is imported when a name that needs it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from perceiver_core.checkpoint import CheckpointError as CheckpointError
    from perceiver_core.config import PerceiverConfig as PerceiverConfig
    from perceiver_core.decoders import PerceiverAbstractDecoder as PerceiverAbstractDecoder
    from perceiver_core.decoders import PerceiverBasicDecoder as PerceiverBasicDecoder
    from perceiver_core.decoders import (
        PerceiverBasicVideoAutoencodingDecoder as PerceiverBasicVideoAutoencodingDecoder,
    )
    from perceiver_core.decoders import PerceiverClassificationDecoder as PerceiverClassificationDecoder
    from perceiver_core.decoders import PerceiverOpticalFlowDecoder as PerceiverOpticalFlowDecoder
    from perceiver_core.decoders import PerceiverProjectionDecoder as PerceiverProjectionDecoder
    from perceiver_core.errors import PerceiverError as PerceiverError
    from perceiver_core.flow import estimate_flow as estimate_flow
    from perceiver_core.flow import estimate_flows as estimate_flows
    from perceiver_core.flow import frame_patches as frame_patches
    from perceiver_core.folding import FoldError as FoldError
    from perceiver_core.folding import fold as fold
    from perceiver_core.heads import (
        PerceiverForImageClassificationConvProcessing as PerceiverForImageClassificationConvProcessing,
    )
    from perceiver_core.heads import (
        PerceiverForImageClassificationFourier as PerceiverForImageClassificationFourier,
    )
    from perceiver_core.heads import (
        PerceiverForImageClassificationLearned as PerceiverForImageClassificationLearned,
    )
    from perceiver_core.heads import PerceiverForMaskedLM as PerceiverForMaskedLM
    from perceiver_core.heads import PerceiverForMultimodalAutoencoding as PerceiverForMultimodalAutoencoding
    from perceiver_core.heads import PerceiverForOpticalFlow as PerceiverForOpticalFlow
    from perceiver_core.heads import PerceiverForSequenceClassification as PerceiverForSequenceClassification
    from perceiver_core.image_preprocessor import PerceiverImagePreprocessor as PerceiverImagePreprocessor
    from perceiver_core.images import PerceiverFeatureExtractor as PerceiverFeatureExtractor
    from perceiver_core.images import PerceiverImageProcessor as PerceiverImageProcessor
    from perceiver_core.images import PerceiverImageProcessorFast as PerceiverImageProcessorFast
    from perceiver_core.images import PerceiverImageProcessorPil as PerceiverImageProcessorPil
    from perceiver_core.modalities import PerceiverMultimodalDecoder as PerceiverMultimodalDecoder
    from perceiver_core.modalities import PerceiverMultimodalPostprocessor as PerceiverMultimodalPostprocessor
    from perceiver_core.modalities import PerceiverMultimodalPreprocessor as PerceiverMultimodalPreprocessor
    from perceiver_core.model import PerceiverModel as PerceiverModel
    from perceiver_core.output_points import OutputPoints as OutputPoints
    from perceiver_core.outputs import PerceiverClassifierOutput as PerceiverClassifierOutput
    from perceiver_core.outputs import PerceiverDecoderOutput as PerceiverDecoderOutput
    from perceiver_core.outputs import PerceiverMaskedLMOutput as PerceiverMaskedLMOutput
    from perceiver_core.outputs import PerceiverModelOutput as PerceiverModelOutput
    from perceiver_core.postprocessors import PerceiverAudioPostprocessor as PerceiverAudioPostprocessor
    from perceiver_core.postprocessors import (
        PerceiverClassificationPostprocessor as PerceiverClassificationPostprocessor,
    )
    from perceiver_core.postprocessors import (
        PerceiverProjectionPostprocessor as PerceiverProjectionPostprocessor,
    )
    from perceiver_core.preprocessors import PerceiverAudioPreprocessor as PerceiverAudioPreprocessor
    from perceiver_core.preprocessors import PerceiverOneHotPreprocessor as PerceiverOneHotPreprocessor
    from perceiver_core.preprocessors import PerceiverTextPreprocessor as PerceiverTextPreprocessor
    from perceiver_core.pretrained import PerceiverPreTrainedModel as PerceiverPreTrainedModel
    from perceiver_core.tokenizer import BatchEncoding as BatchEncoding
    from perceiver_core.tokenizer import PerceiverTokenizer as PerceiverTokenizer

_FILE = {
    "BatchEncoding": "tokenizer",
    "CheckpointError": "checkpoint",
    "FoldError": "folding",
    "OutputPoints": "output_points",
    "PerceiverAbstractDecoder": "decoders",
    "PerceiverAudioPostprocessor": "postprocessors",
    "PerceiverAudioPreprocessor": "preprocessors",
    "PerceiverBasicDecoder": "decoders",
    "PerceiverBasicVideoAutoencodingDecoder": "decoders",
    "PerceiverClassificationDecoder": "decoders",
    "PerceiverClassificationPostprocessor": "postprocessors",
    "PerceiverClassifierOutput": "outputs",
    "PerceiverConfig": "config",
    "PerceiverDecoderOutput": "outputs",
    "PerceiverError": "errors",
    "PerceiverFeatureExtractor": "images",
    "PerceiverForImageClassificationConvProcessing": "heads",
    "PerceiverForImageClassificationFourier": "heads",
    "PerceiverForImageClassificationLearned": "heads",
    "PerceiverForMaskedLM": "heads",
    "PerceiverForMultimodalAutoencoding": "heads",
    "PerceiverForOpticalFlow": "heads",
    "PerceiverForSequenceClassification": "heads",
    "PerceiverImagePreprocessor": "image_preprocessor",
    "PerceiverImageProcessor": "images",
    "PerceiverImageProcessorFast": "images",
    "PerceiverImageProcessorPil": "images",
    "PerceiverMaskedLMOutput": "outputs",
    "PerceiverModel": "model",
    "PerceiverModelOutput": "outputs",
    "PerceiverMultimodalDecoder": "modalities",
    "PerceiverMultimodalPostprocessor": "modalities",
    "PerceiverMultimodalPreprocessor": "modalities",
    "PerceiverOneHotPreprocessor": "preprocessors",
    "PerceiverOpticalFlowDecoder": "decoders",
    "PerceiverPreTrainedModel": "pretrained",
    "PerceiverProjectionDecoder": "decoders",
    "PerceiverProjectionPostprocessor": "postprocessors",
    "PerceiverTextPreprocessor": "preprocessors",
    "PerceiverTokenizer": "tokenizer",
    "estimate_flow": "flow",
    "estimate_flows": "flow",
    "fold": "folding",
    "frame_patches": "flow",
}


def __getattr__(name: str) -> Any:
    if name not in _FILE:
        raise AttributeError(f"module 'perceiver_core' has no attribute {name!r}")
    return getattr(import_module(f"perceiver_core.{_FILE[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_FILE])
