"""Tensors in flight and at rest."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.tensors import (
    Format,
    at_rest,
    in_flight,
    pack,
    ragged,
    rest,
    to_arrays,
    to_numpy,
    unpack,
)

TYPES = [pa.fixed_shape_tensor(pa.uint8(), [2, 3, 1]), pa.fixed_shape_tensor(pa.float32(), [5])]


@given(
    valid=st.lists(st.booleans(), min_size=1, max_size=8),
    cut=st.tuples(st.integers(0, 8), st.integers(0, 8)),
    type=st.sampled_from(TYPES),
    format=st.sampled_from(["arrow", "parquet"]),
)
def test_round_trip(valid: list[bool], cut: tuple[int, int], type: pa.DataType, format: Format) -> None:
    mask = np.array(valid)
    rows = np.random.default_rng(0).integers(0, 99, (int(mask.sum()), *type.shape))
    rows = rows.astype(type.value_type.to_pandas_dtype())
    column = pa.chunked_array([pack(rows, mask)])
    assert column.is_valid().to_pylist() == valid
    np.testing.assert_array_equal(unpack(column, type), rows)

    start, stop = min(cut), max(cut)  # a slice keeps its rows, its nulls and its place
    expected = np.zeros((len(mask), *type.shape), rows.dtype)
    expected[mask] = rows
    part = column.slice(start, stop - start)
    np.testing.assert_array_equal(unpack(part, type), expected[start:stop][mask[start:stop]])
    schema = at_rest(pa.schema([pa.field("x", type)]), format)
    table = pa.Table.from_arrays([rest(part, type, format)], schema=schema)
    table.validate(full=True)
    assert table["x"].is_valid().to_pylist() == valid[start:stop]
    np.testing.assert_array_equal(to_numpy(table, "x"), expected[start:stop])
    np.testing.assert_array_equal(to_numpy(table.slice(1), "x"), expected[start:stop][1:])


def test_packing_and_unpacking_copy_nothing() -> None:
    rows = np.arange(12, dtype=np.uint8).reshape(2, 2, 3, 1)
    assert np.shares_memory(unpack(pack(rows), TYPES[0]), rows)


def test_no_rows() -> None:
    for type in TYPES:
        empty = pa.chunked_array([], pa.large_binary())
        assert unpack(empty, type).shape == (0, *type.shape)
        for format in ("arrow", "parquet"):
            schema = at_rest(pa.schema([pa.field("x", type)]), format)
            table = pa.Table.from_arrays([rest(empty, type, format)], schema=schema)
            assert to_numpy(table, "x").shape == (0, *type.shape)


def test_in_flight_only_tensors_change() -> None:
    schema = in_flight(pa.schema([pa.field("x", TYPES[0]), pa.field("n", pa.int32())]))
    assert schema.types == [pa.large_binary(), pa.int32()]


def test_a_column_without_a_shape_is_refused() -> None:
    with pytest.raises(TypeError, match=r"Column n has type int64: expected a tensor column"):
        to_numpy(pa.table({"n": [1]}), "n")


def test_ragged_tensors_have_their_shapes_beside_them() -> None:
    field = ragged(
        pa.field("flow", pa.large_list(pa.float32()), metadata={"help": "motion"}), "height", "width", 2
    )
    assert field.metadata[b"help"] == b"motion"
    flat = [np.arange(12, dtype=np.float32), np.arange(4, dtype=np.float32)]
    schema = pa.schema([("height", pa.int32()), ("width", pa.int32()), field])
    table = pa.table({"height": [2, 1], "width": [3, 2], "flow": flat}, schema=schema)
    first, second = to_arrays(table, "flow")
    assert np.array_equal(first, flat[0].reshape(2, 3, 2))
    assert np.array_equal(second, flat[1].reshape(1, 2, 2))
    assert np.array_equal(to_arrays(table.slice(1), "flow")[0], second)
    with pytest.raises(TypeError, match="Column height has no shapes: expected a ragged tensor column"):
        to_arrays(table, "height")
