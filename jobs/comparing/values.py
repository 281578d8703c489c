"""A column's values row by row, whatever holds them: tensors of both layouts, lists, lists of lists, single values.

Values are one flat array, and how many of them each row has; what is compared has as many in both.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.tensors import is_tensor, packed_layout, to_numpy

Lengths = npt.NDArray[np.int64]  # (rows,)
Flags = npt.NDArray[np.bool_]  # (rows,)


def tensor_layout(field: pa.Field) -> tuple[np.dtype, tuple[int, ...]] | None:
    """The dtype and shape of a tensor column, as it rests in Arrow or in Parquet; None of all other columns."""
    if is_tensor(field.type):
        return np.dtype(field.type.value_type.to_pandas_dtype()), tuple(field.type.shape)
    return packed_layout(field)


def is_list(type: pa.DataType) -> bool:
    return bool(pa.types.is_list(type) or pa.types.is_large_list(type) or pa.types.is_fixed_size_list(type))


def is_valid(array: pa.Array) -> Flags:
    return np.asarray(array.is_valid())


def kept(array: pa.Array, rows: Flags) -> pa.Array:
    """Some of the rows; all of them are not copied."""
    return array if rows.all() else array.filter(pa.array(rows))


def list_lengths(array: pa.Array) -> Lengths:
    """How long each row's list is; a null's is empty."""
    return np.asarray(pc.fill_null(pc.list_value_length(array), 0), np.int64)


def same_lengths(a: pa.Array, b: pa.Array) -> Flags:
    """In which rows two columns of lists have equally long ones, on every level."""
    own, other = list_lengths(a), list_lengths(b)
    same: Flags = own == other
    if is_list(a.type.value_type) and len(a):
        inner = same_lengths(kept(a, same).flatten(), kept(b, same).flatten())
        same[same] = by_row(np.logical_and, inner, own[same], True)
    return same


def flat(array: pa.Array, field: pa.Field) -> tuple[npt.NDArray[Any] | pa.Array, Lengths]:
    """The values of rows that are not null, and how many each row has; numpy's where they are numbers."""
    layout = tensor_layout(field)
    if layout:
        tensors = to_numpy(pa.Table.from_arrays([array], schema=pa.schema([field])), field.name)
        return tensors.reshape(-1), np.full(len(array), int(np.prod(layout[1])), np.int64)
    lengths = np.ones(len(array), np.int64)
    levels = []
    while is_list(array.type):
        levels.append(list_lengths(array))
        array = array.flatten()
    if levels:
        lengths = levels.pop()
        while levels:
            lengths = by_row(np.add, lengths, levels.pop(), 0)
    if pa.types.is_floating(array.type):
        return array.to_numpy(zero_copy_only=False), lengths
    return array, lengths


def by_row(reduce: np.ufunc, values: npt.NDArray[Any], lengths: Lengths, empty: Any) -> npt.NDArray[Any]:
    """Each row's values as one, such as their sum; `empty` for a row without any."""
    found = np.full(len(lengths), empty, values.dtype)
    full = lengths > 0
    if full.any():
        starts = np.cumsum(lengths) - lengths
        found[full] = reduce.reduceat(values, starts[full])
    return found


def unequal(a: pa.Array, b: pa.Array) -> Flags:
    """Where two columns of single values differ; null is unlike all but null."""
    if pa.types.is_null(a.type):
        return np.zeros(len(a), bool)
    if pa.types.is_dictionary(a.type):
        a, b = a.dictionary_decode(), b.dictionary_decode()
    differs = np.asarray(pc.fill_null(pc.not_equal(a, b), False))
    return differs | (is_valid(a) != is_valid(b))
