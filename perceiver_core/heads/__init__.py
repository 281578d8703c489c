"""The PerceiverFor... models: the published architectures, put together from the parts."""

from perceiver_core.heads.images import (
    PerceiverForImageClassificationConvProcessing,
    PerceiverForImageClassificationFourier,
    PerceiverForImageClassificationLearned,
)
from perceiver_core.heads.multimodal import PerceiverForMultimodalAutoencoding
from perceiver_core.heads.optical_flow import PerceiverForOpticalFlow
from perceiver_core.heads.text import PerceiverForMaskedLM, PerceiverForSequenceClassification
from perceiver_core.model import PerceiverModel
from perceiver_core.pretrained import PerceiverPreTrainedModel

#: The classes that a config.json may name.
ARCHITECTURES: dict[str, type[PerceiverPreTrainedModel]] = {
    architecture.__name__: architecture
    for architecture in (
        PerceiverForImageClassificationConvProcessing,
        PerceiverForImageClassificationFourier,
        PerceiverForImageClassificationLearned,
        PerceiverForMaskedLM,
        PerceiverForMultimodalAutoencoding,
        PerceiverForOpticalFlow,
        PerceiverForSequenceClassification,
        PerceiverModel,
    )
}
