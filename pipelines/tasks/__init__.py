"""The tasks: what a model does to one item. One file each; this tuple is the whole list."""

import difflib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar, Protocol

import pyarrow as pa

from perceiver_core.config import PerceiverConfig
from pipelines.contents import Content
from pipelines.limits import Limits
from pipelines.tasks.decode import Decode
from pipelines.tasks.image_classification import ImageClassification
from pipelines.tasks.latents import Latents
from pipelines.tasks.masked_lm import MaskedLM
from pipelines.tasks.multimodal_autoencoding import MultimodalAutoencoding
from pipelines.tasks.optical_flow import OpticalFlow
from pipelines.tasks.text_classification import TextClassification
from pipelines.tasks.video_classification import VideoClassification
from pipelines.tensors import Format

if TYPE_CHECKING:
    from pipelines.assembly import Assembly


class Task(Protocol):
    """A frozen dataclass whose fields are the user's options, and the functions that the stages call.

    What few tasks have, and others need not: `contents_for(config)` and `probes_for(config)`, where these depend on the
    checkpoint (latents); `refused`, of checkpoints that one might expect, and why they can't be run on (decode).
    """

    __dataclass_fields__: ClassVar[dict[str, Any]]
    name: ClassVar[str]
    architectures: ClassVar[tuple[str, ...]]  #: the checkpoints that it runs on
    contents: ClassVar[tuple[tuple[Content, ...], ...]]  #: what it can be given of an item: one of these sets
    probes: ClassVar[bool]  #: whether an item's header tells how many windows it has; else every item is one

    @property
    def preview(self) -> tuple[str, ...]:
        """The columns that a table in a terminal shows."""

    @property
    def reconstructs(self) -> bool:
        """Whether it makes whole videos, with labels and PSNR: a contact sheet shows them beside their sources."""

    @property
    def format(self) -> Format:
        """The format of the output, unless the job says otherwise."""

    @property
    def assembly(self) -> "Assembly | None":
        """What is made of the committed parts in the end, beside the table; a column of the rows names its files."""

    @property
    def staged(self) -> bool:
        """Whether the parts are not the table: it is published in the end, in few files and without their tensors."""

    def check(self, config: PerceiverConfig) -> None:
        """Raise ValueError if the options don't fit the checkpoint."""

    def batch(self, device: str) -> int:
        """How many windows a call of the model has, unless the job says otherwise; `device` is cpu or cuda."""

    def probe(
        self, files: Mapping[str, BinaryIO], config: PerceiverConfig, limits: Limits
    ) -> tuple[int, str]:
        """Read an item's header: how many windows it has, and what `preprocess` should know of it (JSON)."""

    def input_schema(self, config: PerceiverConfig) -> pa.Schema:
        """The columns of a window, as `preprocess` yields them; ragged ones are large lists, their shape beside."""

    def output_schema(self, config: PerceiverConfig) -> pa.Schema:
        """The columns that the task adds to an output row."""

    def preprocess(
        self,
        files: Mapping[str, BinaryIO],
        info: str | None,
        first: int,
        stop: int,
        config: PerceiverConfig,
        limits: Limits,
    ) -> Iterator[Mapping[str, Any]]:
        """Decode the windows [first, stop) of one item on the CPU; of an item that was not probed, all there are."""

    def chunk(self, config: PerceiverConfig, batch: int, budget: int) -> int:
        """How many output points of each of `batch` items a decoder call may have within `budget` bytes."""

    def predict(self, model: Any, batch: Mapping[str, Any], chunk: int) -> dict[str, Any]:
        """Run the model on a batch of windows, on its device: for each row in a row of an array, or of a list."""

    def postprocess(
        self, windows: pa.Table, predictions: Mapping[str, Any], config: PerceiverConfig
    ) -> dict[str, pa.Array]:
        """Name and null what was predicted for a shard: the columns that windows don't have yet, tensors packed."""


TASKS: tuple[type[Task], ...] = (
    MultimodalAutoencoding,
    VideoClassification,
    ImageClassification,
    OpticalFlow,
    MaskedLM,
    TextClassification,
    Latents,
    Decode,
)


def task_named(name: str) -> type[Task]:
    """The task of that name; ValueError names those there are."""
    for task in TASKS:
        if task.name == name:
            return task
    names = [task.name for task in TASKS]
    near = difflib.get_close_matches(name, names, n=1)
    meant = f" Did you mean {near[0]}?" if near else ""
    raise ValueError(f"No such task: {name}.{meant} The tasks are: {', '.join(names)}.")
