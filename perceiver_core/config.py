"""PerceiverConfig: Hugging Face's fields, defaults and JSON, and the six published configurations. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any

from perceiver_core.sources import CheckpointError, checkpoint_folder, first_names

_PROBLEM_TYPES = (None, "regression", "single_label_classification", "multi_label_classification")
_NULLABLE = ("qk_channels", "v_channels", "problem_type")  # null means None; of others, "not set"


@dataclass(frozen=True, kw_only=True)
class PerceiverConfig:
    """Sizes of a Perceiver IO model, as in the config.json of a Hugging Face checkpoint.

    `num_labels` follows `id2label` where that is given; with neither there are 2 labels, named LABEL_0 and LABEL_1.
    `extra` holds keys of a config.json that this class does not know, so that writing it again loses nothing.
    Raises ValueError for values that no model could be built from.
    """

    num_latents: int = 256
    d_latents: int = 1280
    d_model: int = 768
    num_blocks: int = 1
    num_self_attends_per_block: int = 26
    num_self_attention_heads: int = 8
    num_cross_attention_heads: int = 8
    qk_channels: int | None = None
    v_channels: int | None = None
    cross_attention_shape_for_attention: str = "kv"
    self_attention_widening_factor: int = 1
    cross_attention_widening_factor: int = 1
    hidden_act: str = "gelu"
    attention_probs_dropout_prob: float = 0.1
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12  # read by nobody, upstream included: every LayerNorm has torch's 1e-5
    use_query_residual: bool = True
    vocab_size: int = 262
    max_position_embeddings: int = 2048
    image_size: int | tuple[int, ...] = 56
    train_size: tuple[int, ...] = (368, 496)
    num_frames: int = 16
    audio_samples_per_frame: int = 1920
    samples_per_patch: int = 16
    output_shape: tuple[int, ...] = (1, 16, 224, 224)  # batch, frames, height, width
    output_num_channels: int = 512
    _label_trainable_num_channels: int = 1024

    reference: str = "hf"  # "deepmind": the original model's answers from the same weights
    problem_type: str | None = None
    chunk_size_feed_forward: int = 0  # tokens in the MLP at a time; 0: all

    output_attentions: bool = False
    output_hidden_states: bool = False
    return_dict: bool = True
    architectures: tuple[str, ...] = ()
    id2label: dict[int, str] = field(default_factory=dict)
    label2id: dict[str, int] = field(default_factory=dict)
    num_labels: int = 0  # 0: as many as id2label has
    extra: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.cross_attention_shape_for_attention not in ("q", "kv"):
            raise ValueError(
                "cross_attention_shape_for_attention must be 'q' or 'kv'; "
                f"got {self.cross_attention_shape_for_attention!r}."
            )
        if len(self.output_shape) != 4:
            raise ValueError(
                f"output_shape must have 4 numbers (batch, frames, height, width); got {self.output_shape!r}."
            )
        if self.reference not in ("hf", "deepmind"):
            raise ValueError(f"reference must be 'hf' or 'deepmind'; got {self.reference!r}.")
        if self.problem_type not in _PROBLEM_TYPES:
            raise ValueError(
                f"problem_type must be one of {', '.join(map(str, _PROBLEM_TYPES))}; got {self.problem_type!r}."
            )
        if self.chunk_size_feed_forward < 0:
            raise ValueError(
                f"chunk_size_feed_forward must be 0 or more; got {self.chunk_size_feed_forward}."
            )
        id2label = {int(index): label for index, label in self.id2label.items()}  # JSON keys are strings
        id2label = id2label or {index: f"LABEL_{index}" for index in range(self.num_labels or 2)}
        if self.num_labels not in (0, len(id2label)):
            raise ValueError(
                f"num_labels is {self.num_labels} but id2label has {len(id2label)} entries; "
                "give id2label alone (num_labels=0), or num_labels with id2label={}."
            )
        normal = {
            "id2label": id2label,
            "label2id": dict(self.label2id) or {label: index for index, label in id2label.items()},
            "num_labels": len(id2label),
            "train_size": tuple(self.train_size),
            "output_shape": tuple(self.output_shape),
            "image_size": self.image_size if isinstance(self.image_size, int) else tuple(self.image_size),
            "architectures": tuple(self.architectures or ()),
        }
        for name, value in normal.items():
            object.__setattr__(self, name, value)

    @property
    def num_audio_samples(self) -> int:
        """Samples of sound in one window."""
        return self.num_frames * self.audio_samples_per_frame

    @property
    def num_audio_patches(self) -> int:
        """Output points of sound in one window; each is `samples_per_patch` samples."""
        return self.num_audio_samples // self.samples_per_patch

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> PerceiverConfig:
        """Reads the keys of a config.json; unknown ones are kept in `extra`."""
        model_type = values.get("model_type", "perceiver")
        if model_type != "perceiver":
            raise ValueError(
                f"model_type must be 'perceiver'; got {model_type!r}. Is this the right checkpoint?"
            )
        names = {f.name for f in fields(cls)} - {"extra"}
        known = {k: v for k, v in values.items() if k in names and (v is not None or k in _NULLABLE)}
        extra = {k: v for k, v in values.items() if k not in names and k != "model_type"}
        return cls(**known, extra=extra)

    def to_dict(self) -> dict[str, Any]:
        """The content of a config.json, `extra` included; num_labels is left to id2label, as upstream does."""
        left_out = {"extra", "num_labels"} | ({"reference"} if self.reference == "hf" else set())
        known = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in left_out}
        return {**known, **self.extra, "model_type": "perceiver"}

    def replaced(self, **changes: Any) -> PerceiverConfig:
        """This config with fields changed as upstream's from_pretrained(path, num_labels=5) changes them.

        Another number of labels gives them numbered names, and new names their number. What is no field goes to
        `extra`.
        """
        values = self.to_dict()
        if changes.get("id2label") is not None:
            del values["label2id"]
        elif changes.get("num_labels") not in (None, self.num_labels):
            del values["id2label"], values["label2id"]
        return self.from_dict(values | changes)

    @classmethod
    def from_json_file(cls, path: str | Path) -> PerceiverConfig:
        """Reads a config.json."""
        return cls.from_dict(json.loads(Path(path).read_text(encoding="utf-8")))

    def to_json_file(self, path: str | Path) -> None:
        """Writes a config.json."""
        text = json.dumps(self.to_dict(), indent=2, sort_keys=True) + "\n"
        Path(path).write_text(text, encoding="utf-8")

    @classmethod
    def from_pretrained(cls, path: str | Path, **changes: Any) -> PerceiverConfig:
        """The config of a checkpoint, wherever sources.checkpoint_folder finds it, `replaced` by the changes.

        Raises CheckpointError.
        """
        folder = checkpoint_folder(path, weights=False)
        file = folder / "config.json"
        if not file.is_file():
            raise CheckpointError(
                f"{folder} must have a config.json; got {first_names(path.name for path in folder.iterdir())}. "
                "Give the folder that save_pretrained wrote."
            )
        try:
            config = cls.from_json_file(file)
        except (ValueError, TypeError, AttributeError) as error:
            raise CheckpointError(f"{file} must be the config of a Perceiver; got: {error}") from error
        return config.replaced(**changes)

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes config.json into a folder."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        self.to_json_file(Path(folder, "config.json"))


@dataclass(frozen=True)
class Published:
    """A published configuration; its labels, where it has any, have numbered names."""

    config: PerceiverConfig
    parameters: int
    purpose: str

    @property
    def architecture(self) -> str:
        """The class that its weights are for."""
        return self.config.architectures[0]


def _vision(architecture: str, d_model: int, image_size: int = 56) -> PerceiverConfig:
    return PerceiverConfig(
        architectures=(architecture,),
        num_latents=512,
        d_latents=1024,
        d_model=d_model,
        num_blocks=8,
        num_self_attends_per_block=6,
        num_self_attention_heads=8,
        num_cross_attention_heads=1,
        image_size=image_size,
        num_labels=1000,
    )


#: The six published configurations, by their hub ids.
PUBLISHED: Mapping[str, Published] = MappingProxyType(
    {
        "deepmind/language-perceiver": Published(
            PerceiverConfig(architectures=("PerceiverForMaskedLM",), qk_channels=256, v_channels=1280),
            201_108_230,
            "masked bytes of UTF-8 text",
        ),
        "deepmind/vision-perceiver-learned": Published(
            _vision("PerceiverForImageClassificationLearned", d_model=512, image_size=224),
            62_255_848,
            "ImageNet classes; learned positions",
        ),
        "deepmind/vision-perceiver-fourier": Published(
            _vision("PerceiverForImageClassificationFourier", d_model=261),
            48_440_627,
            "ImageNet classes; Fourier positions",
        ),
        "deepmind/vision-perceiver-conv": Published(
            _vision("PerceiverForImageClassificationConvProcessing", d_model=322),
            48_646_522,
            "ImageNet classes; a convolution first",
        ),
        "deepmind/optical-flow-perceiver": Published(
            PerceiverConfig(
                architectures=("PerceiverForOpticalFlow",),
                num_latents=2048,
                d_latents=512,
                d_model=322,
                num_self_attends_per_block=24,
                num_self_attention_heads=16,
                num_cross_attention_heads=1,
            ),
            41_057_134,
            "each pixel's way from frame to frame",
        ),
        "deepmind/multimodal-perceiver": Published(
            PerceiverConfig(
                architectures=("PerceiverForMultimodalAutoencoding",),
                num_latents=28 * 28,
                d_latents=512,
                d_model=704,
                num_self_attends_per_block=8,
                num_self_attention_heads=8,
                num_cross_attention_heads=1,
                num_labels=700,
            ),
            19_858_855,
            "video, sound and Kinetics classes",
        ),
    }
)


def multimodal_perceiver() -> PerceiverConfig:
    """The published deepmind/multimodal-perceiver, with numbered label names."""
    return PUBLISHED["deepmind/multimodal-perceiver"].config
