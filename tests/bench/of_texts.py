"""Whole runs over texts in a table, for what is measured of `run_job` beside the model."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.attempt import RunResult, run_job
from jobs.spec import parse_job
from tests.pipelines.committing import NoProgress
from tests.pipelines.staging import save_head


def save_model(folder: Path) -> None:
    """What `run_texts` uses in the folders below this one."""
    save_head(folder / "model", "PerceiverForSequenceClassification", max_position_embeddings=512)


def write_texts(home: Path, texts: Sequence[bytes]) -> None:
    """A folder with these in a table."""
    home.mkdir()
    table = pa.table({"text": pa.array(texts, pa.binary())})
    pq.write_table(table, home / "texts.parquet", row_group_size=1000)


def run_texts(home: Path, name: str, **compute: Any) -> RunResult:
    """Classify them, into `out` beside them."""
    job = parse_job(
        {
            "name": name,
            "task": "text-classification",
            "model": {"checkpoint": str(home.parent / "model")},
            "input": {"uri": str(home / "texts.parquet")},
            "output": {"uri": str(home / "out")},
            "options": {"top_k": 2, "overlap": 32},
            "compute": compute,
        }
    )
    return run_job(job, NoProgress())
