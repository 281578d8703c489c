"""What is kept of a table, from its cells to the output's files."""

import datetime
import decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines import reader
from pipelines.contents import VIDEO
from pipelines.decoding import Decoder
from pipelines.items import InputError
from pipelines.limits import Limits
from pipelines.plan import cut_shards, list_and_probe, shards
from pipelines.sink import Sink, write_part
from pipelines.stages import Decode, check_kept
from pipelines.tensors import Format
from tests.clips import write_clip
from tests.conftest import tiny_config
from tests.pipelines.committing import prepared
from tests.pipelines.copying import Copying, ModelLess
from tests.pipelines.sources.reading import chosen

TENSORS = np.arange(24, dtype=np.float32).reshape(3, 2, 4)
KEPT: dict[str, Any] = {
    "n": pa.array([1, None, 3], pa.uint8()),
    "price": pa.array([decimal.Decimal("1.50"), None, decimal.Decimal("2.25")], pa.decimal128(9, 2)),
    "day": [datetime.date(2026, 1, 1), None, datetime.date(2026, 1, 3)],
    "at": pa.array([1, None, 1 << 60], pa.timestamp("ns")),
    "words": [["a", None], None, []],
    "box": [{"x": 1.5, "y": ["z"]}, None, {"x": None, "y": None}],
    "raw": [b"\0", None, b""],
    "kind": pa.array(["p", None, "q"]).dictionary_encode(),
    "vector": pa.FixedShapeTensorArray.from_numpy_ndarray(TENSORS),
}


@pytest.mark.parametrize("format", ["arrow", "parquet"])
@pytest.mark.parametrize("suffix", ["arrow", "parquet"])
def test_columns_of_every_kind_arrive_as_they_were(tmp_path: Path, suffix: str, format: Format) -> None:
    write_clip(tmp_path / "clip.mp4", frames=20)
    clip = (tmp_path / "clip.mp4").read_bytes()
    table = pa.table({"video": [clip, b"no video", clip], **KEPT})
    path = tmp_path / f"t.{suffix}"
    if suffix == "parquet":
        pq.write_table(table, path)
    else:
        with pa.ipc.new_file(str(path), table.schema) as file:
            file.write_table(table)
    task, config, limits = Copying(top_k=2), tiny_config(), Limits()
    source = chosen(path, (VIDEO,), keep=list(KEPT))
    check_kept(source.kept, task, config)
    plan = cut_shards(list_and_probe(source, [Decoder(task, config, limits)]), 2)
    columns = pa.schema([*source.kept, *task.output_schema(config)])
    sink = Sink(prepared(tmp_path / "out"), "run0", 1, format, columns, '{"job": "keep"}')
    decode, predict = Decode(task, config, source, limits), ModelLess(task, config)
    predict.kept = source.kept
    parts = [write_part(predict(decode.shard(spans)), sink) for spans in shards(plan).values()]
    decode.reader.close()
    assert sum(part["quarantined"][0].as_py() for part in parts) == 1
    files = sorted((tmp_path / "out/data").iterdir())
    found = pa.concat_tables([_read(path) for path in files])
    assert found["member"].to_pylist() == ["0", "0", "2", "2"]
    for name in KEPT:
        if name == "vector":
            np.testing.assert_array_equal(reader.to_numpy(found, name), TENSORS[[0, 0, 2, 2]])
            continue
        expected = table[name].take(pa.array([0, 0, 2, 2]))
        type = pa.string() if name == "kind" else table.schema.field(name).type
        assert found.schema.field(name).type == type, name
        assert found[name].to_pylist() == expected.to_pylist(), name


def _read(path: Path) -> pa.Table:
    if path.suffix == ".parquet":
        return pq.read_table(path)
    with pa.memory_map(str(path)) as file:
        return pa.ipc.open_file(file).read_all()


def test_columns_that_the_output_has_are_refused_by_name() -> None:
    kept = pa.schema(
        [("n", pa.int64()), ("labels", pa.string()), ("uri", pa.string()), ("error", pa.string())]
    )
    with pytest.raises(
        InputError, match=r"asks for labels, uri, error, but the output of multimodal-autoencoding has"
    ):
        check_kept(kept, Copying(), tiny_config())
