"""Labels by name: what is kept of the scores, and the CSV."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from perceiver_core import PerceiverConfig
from pipelines.labels import check_labels, check_options, most_likely, named, write_csv
from pipelines.reader import dataset_of
from tests.pipelines.committing import prepared

NAMES = {0: "apple", 1: 'bell, "loud"', 2: "cat"}


def test_scores_are_probabilities_the_largest_first() -> None:
    logits = torch.tensor([[0.0, 2.0, 1.0], [3.0, 0.0, 0.0]]).bfloat16()
    found = most_likely(logits, 2, PerceiverConfig(id2label=NAMES))
    assert found["labels"][:, 0].tolist() == [1, 0]
    expected = np.exp([2, 1]) / np.exp([0, 2, 1]).sum()
    np.testing.assert_allclose(found["scores"][0], expected, rtol=1e-6)
    several = PerceiverConfig(id2label=NAMES, problem_type="multi_label_classification")
    np.testing.assert_allclose(
        most_likely(logits, 2, several)["scores"][0], 1 / (1 + np.exp([-2.0, -1.0])), rtol=1e-6
    )


def test_names_and_what_is_under_the_threshold() -> None:
    labels = np.array([[1, 0], [2, 1], [0, 2]])
    scores = np.array([[0.7, 0.2], [0.5, 0.5], [0.4, 0.3]], np.float32)
    columns = named(labels, scores, 0.5, PerceiverConfig(id2label=NAMES))
    assert columns["labels"].to_pylist() == [['bell, "loud"'], ["cat", 'bell, "loud"'], []]
    assert columns["scores"].to_pylist() == [[np.float32(0.7)], [0.5, 0.5], []]
    assert named(labels, scores, 0, PerceiverConfig(id2label=NAMES))["labels"].to_pylist()[2] == [
        "apple",
        "cat",
    ]


def test_the_csv_has_as_many_cells_in_every_line(tmp_path: Path) -> None:
    rows = {
        "uri": ["a.mp4", "b,c.mp4"],
        "member": [None, "x"],
        "window": [0, 1],
        "labels": [["cat", 'bell, "loud"'], []],
        "scores": pa.array([[0.75, 0.125], []], pa.list_(pa.float32())),
    }
    pq.write_table(pa.table(rows).slice(0, 1), tmp_path / "0.parquet")
    pq.write_table(pa.table(rows).slice(1, 1), tmp_path / "1.parquet")
    write_csv(tmp_path / "labels.csv", dataset_of(prepared(tmp_path), ["0.parquet", "1.parquet"]), 2)
    assert (tmp_path / "labels.csv").read_bytes().decode().split("\r\n") == [
        "uri,member,window,label_1,score_1,label_2,score_2",
        'a.mp4,,0,cat,0.75,"bell, ""loud""",0.125',
        '"b,c.mp4",x,1,,,,',
        "",
    ]
    with pa.ipc.new_file(str(tmp_path / "0.arrow"), pa.table(rows).drop_columns("window").schema) as file:
        file.write(pa.table(rows).drop_columns("window"))
    write_csv(tmp_path / "other.csv", dataset_of(prepared(tmp_path), ["0.arrow"]), 2)
    assert (tmp_path / "other.csv").read_text().startswith("uri,member,label_1,score_1,label_2,score_2\n")


def test_options_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="top_k must be at least 1, got 0"):
        check_options(0, 0)
    with pytest.raises(ValueError, match=r"threshold must be from 0 to 1, got 1\.5"):
        check_options(1, 1.5)
    with pytest.raises(ValueError, match="top_k is 4, but the checkpoint has 3 labels: set"):
        check_labels(4, PerceiverConfig(id2label=NAMES))
    with pytest.raises(ValueError, match="problem_type is regression"):
        check_labels(1, PerceiverConfig(id2label=NAMES, problem_type="regression"))
