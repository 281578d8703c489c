"""Labels: the most likely ones of each row, by name, and all of a table's as a CSV for people."""

import csv
from collections.abc import Collection, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.dataset

from perceiver_core.config import PerceiverConfig
from pipelines.describing import column

if TYPE_CHECKING:
    from pipelines.assembly import Assembly
    from pipelines.meter import Progress
    from pipelines.sink import Sink

#: The columns that a classifying task adds.
LABELS = (
    column("labels", pa.list_(pa.string()), "names of at most top_k labels, the most likely first"),
    column("scores", pa.list_(pa.float32()), "how likely each of them is, from 0 to 1"),
)

CSV = "labels.csv"  #: in the output's folder


def check_options(top_k: int, threshold: float) -> None:
    """Raise ValueError for options that no checkpoint could have."""
    if top_k < 1:
        raise ValueError(f"top_k must be at least 1, got {top_k}.")
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold must be from 0 to 1, got {threshold}: scores are probabilities.")


def check_labels(top_k: int, config: PerceiverConfig) -> None:
    """Raise ValueError if the checkpoint has fewer labels, or numbers instead of labels."""
    if top_k > config.num_labels:
        raise ValueError(
            f"top_k is {top_k}, but the checkpoint has {config.num_labels} labels: "
            f"set options.top_k to at most {config.num_labels}."
        )
    if config.problem_type == "regression":
        raise ValueError(
            "the checkpoint's problem_type is regression: it has numbers where labels are expected. "
            "Choose a checkpoint that classifies."
        )


def most_likely(logits: Any, top_k: int, config: PerceiverConfig) -> dict[str, npt.NDArray[Any]]:
    """Logits (B, labels) -> the indices `labels` (B, top_k) and their `scores`, as predict returns them.

    Scores add up to 1 over all labels, unless the config says that several may hold at once.
    """
    logits = logits.float()
    several = config.problem_type == "multi_label_classification"
    scores, labels = (logits.sigmoid() if several else logits.softmax(-1)).topk(top_k)  # B, K
    return {"labels": labels.cpu().numpy(), "scores": scores.cpu().numpy()}


def named(
    labels: npt.NDArray[np.int64], scores: npt.NDArray[np.float32], threshold: float, config: PerceiverConfig
) -> dict[str, pa.Array]:
    """Indices and scores (rows, K), the largest first -> the columns LABELS, less what scores under the threshold."""
    names = np.array([config.id2label[i] for i in range(config.num_labels)], object)
    kept = scores >= threshold
    counts = np.concatenate([[0], np.cumsum(kept.sum(axis=1))]).astype(np.int32)
    return {
        "labels": pa.ListArray.from_arrays(counts, pa.array(names[labels[kept]], pa.string())),
        "scores": pa.ListArray.from_arrays(counts, pa.array(scores[kept], pa.float32())),
    }


def csv_of_labels(top_k: int) -> "Assembly":
    """The published table as a CSV."""
    from pipelines.assembly import Assembly

    return Assembly(CSV, partial(_write_table, top_k=top_k))


def _write_table(
    plan: pa.Table,
    sink: "Sink",
    files: Sequence[str],
    incomplete: Collection[str],
    workers: int,
    progress: "Progress",
    *,
    top_k: int,
) -> None:
    from pipelines.reader import dataset_of

    if not sink.again and sink.storage.exists(CSV):
        return
    with sink.storage.draft() as draft:
        write_csv(draft, dataset_of(sink.storage, files), top_k)
        if sink.again:  # of the table before
            sink.storage.write(CSV, draft.read_bytes())
        else:
            sink.storage.create(CSV, draft)


def write_csv(path: Path, table: pyarrow.dataset.Dataset, top_k: int) -> None:
    """A published table as a CSV, a line a row."""
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(_lines(table, top_k))


def _lines(table: pyarrow.dataset.Dataset, top_k: int) -> Iterator[list[Any]]:
    """A header, and a line a row: what it is of, then label and score by turns; as many cells in every line."""
    origin = ["uri", "member", *(["window"] if "window" in table.schema.names else [])]
    numbers = range(1, top_k + 1)
    yield [*origin, *(cell for n in numbers for cell in (f"label_{n}", f"score_{n}"))]
    for batch in table.to_batches(columns=[*origin, "labels", "scores"], batch_size=4096):
        for row in batch.to_pylist():
            pairs = list(zip(row["labels"], row["scores"], strict=True))
            cells: list[Any] = [cell for label, score in pairs for cell in (label, f"{score:.6g}")]
            yield [*(row[name] for name in origin), *cells, *[""] * (2 * top_k - len(cells))]
