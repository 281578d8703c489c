"""Tensors in Arrow: how they travel between stages, how they rest in files, and how a reader gets them back."""

import json
import re
from typing import Literal

import numpy as np
import pyarrow as pa

Format = Literal["arrow", "parquet"]

_DTYPE, _SHAPE, _RAGGED = b"perceive.dtype", b"perceive.shape", b"perceive.ragged"


def in_flight(schema: pa.Schema) -> pa.Schema:
    """The schema between stages: tensors as large_binary, where a null costs nothing and a view copies nothing."""
    return pa.schema(
        [pa.field(f.name, pa.large_binary() if is_tensor(f.type) else f.type, f.nullable) for f in schema]
    )


def at_rest(schema: pa.Schema, format: Format) -> pa.Schema:
    """The schema in files: canonical fixed_shape_tensor in Arrow; in Parquet fixed_size_binary with shape and
    dtype in the field's metadata, as lists of numbers it measured 41-98 MB/s instead of 0.7-1.1 GB/s.
    """
    if format == "arrow":
        return schema
    return pa.schema([_binary_field(f) if is_tensor(f.type) else f for f in schema])


def is_tensor(type: pa.DataType) -> bool:
    return isinstance(type, pa.FixedShapeTensorType)


def pack(rows: np.ndarray, valid: np.ndarray | None = None) -> pa.LargeBinaryArray:
    """Tensors (n, ...) to n' binary values without a copy; `valid` (n',) bool spreads them, nulls between."""
    rows = np.ascontiguousarray(rows)
    if valid is None:
        valid = np.ones(len(rows), bool)
    size = rows.nbytes // len(rows) if len(rows) else 0
    offsets = np.concatenate([[0], np.cumsum(valid)]).astype(np.int64) * size
    nulls = pa.py_buffer(np.packbits(valid, bitorder="little"))
    return pa.LargeBinaryArray.from_buffers(
        pa.large_binary(), len(valid), [nulls, pa.py_buffer(offsets), pa.py_buffer(rows.reshape(-1))]
    )


def unpack(column: pa.ChunkedArray | pa.Array, type: pa.FixedShapeTensorType) -> np.ndarray:
    """The non-null values of a packed column as one array (n, *shape), a view wherever there is one chunk."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(array, pa.ChunkedArray):  # combine_chunks of no chunks at all
        array = pa.array([], pa.large_binary())
    shape = tuple(type.shape)
    dtype = type.value_type.to_pandas_dtype()
    if array.null_count == len(array):
        return np.empty((0, *shape), dtype)
    _, offsets, data = array.buffers()
    ends = np.frombuffer(offsets, np.int64)[array.offset : array.offset + len(array) + 1]
    flat = np.frombuffer(data, np.uint8)[ends[0] : ends[-1]]  # a null's span is empty: the rest is contiguous
    return flat.view(dtype).reshape(-1, *shape)


def rest(column: pa.ChunkedArray, type: pa.FixedShapeTensorType, format: Format) -> pa.Array:
    """A packed column as it rests in a file."""
    rows = unpack(column, type)
    valid = np.asarray(column.is_valid())
    if len(rows) != len(valid):  # both layouts keep a null's place
        placed = np.zeros((len(valid), *rows.shape[1:]), rows.dtype)
        placed[valid] = rows
        rows = placed
    nulls = None if valid.all() else pa.py_buffer(np.packbits(valid, bitorder="little"))
    data = pa.py_buffer(np.ascontiguousarray(rows).reshape(-1))
    if format == "parquet":
        size = rows.nbytes // len(rows) if len(rows) else _size(type)
        return pa.FixedSizeBinaryArray.from_buffers(pa.binary(size), len(valid), [nulls, data])
    values = pa.Array.from_buffers(type.value_type, rows.size, [None, data])
    storage = pa.Array.from_buffers(type.storage_type, len(valid), [nulls], children=[values])
    return pa.ExtensionArray.from_storage(type, storage)


def to_numpy(table: pa.Table, name: str) -> np.ndarray:
    """A tensor column of an output table as one array (rows, *shape), zeros where the table has nulls."""
    field = table.schema.field(name)
    column = table[name].combine_chunks()
    if isinstance(column, pa.ChunkedArray):
        column = pa.concat_arrays(column.chunks)
    if is_tensor(field.type):
        dtype, shape = field.type.value_type.to_pandas_dtype(), tuple(field.type.shape)
        buffer = column.storage.values.buffers()[1]
        start = column.storage.values.offset
        flat = np.frombuffer(buffer, dtype) if buffer is not None else np.empty(0, dtype)
        size = int(np.prod(shape))
        return flat[start + column.offset * size :][: len(column) * size].reshape(-1, *shape)
    layout = packed_layout(field)
    if layout is None:
        raise TypeError(f"Column {name} has type {field.type}: expected a tensor column of a perceive table.")
    dtype, shape = layout
    size = int(np.prod(shape)) * dtype.itemsize
    data = np.frombuffer(column.buffers()[1], np.uint8) if len(column) else np.empty(0, np.uint8)
    return data[column.offset * size : (column.offset + len(column)) * size].view(dtype).reshape(-1, *shape)


def packed_layout(field: pa.Field) -> tuple[np.dtype, tuple[int, ...]] | None:
    """The dtype and shape of a tensor column as it rests in Parquet; None of all other columns."""
    metadata = field.metadata or {}
    if _DTYPE not in metadata or not pa.types.is_fixed_size_binary(field.type):
        return None
    return np.dtype(metadata[_DTYPE].decode()), tuple(json.loads(metadata[_SHAPE]))


def ragged(field: pa.Field, *shape: str | int) -> pa.Field:
    """A field of large lists that are tensors: their shape, in numbers and names of the row's other columns."""
    return field.with_metadata((field.metadata or {}) | {_RAGGED: json.dumps(shape).encode()})


def to_arrays(table: pa.Table, name: str) -> list[np.ndarray]:
    """A ragged tensor column of an output table, an array a row, each of its own shape; nulls are errors."""
    metadata = table.schema.field(name).metadata or {}
    if _RAGGED not in metadata:
        raise TypeError(
            f"Column {name} has no shapes: expected a ragged tensor column. to_numpy takes others."
        )
    sides = [
        [side] * table.num_rows if isinstance(side, int) else table[side].to_pylist()
        for side in json.loads(metadata[_RAGGED])
    ]
    shapes = zip(*sides, strict=True)
    return [row.values.to_numpy().reshape(shape) for row, shape in zip(table[name], shapes, strict=True)]


def _binary_field(field: pa.Field) -> pa.Field:
    dtype = np.dtype(field.type.value_type.to_pandas_dtype())
    metadata = (field.metadata or {}) | {
        _DTYPE: dtype.name.encode(),
        _SHAPE: json.dumps(list(field.type.shape)).encode(),
    }
    return pa.field(field.name, pa.binary(_size(field.type)), field.nullable, metadata)


def _size(type: pa.FixedShapeTensorType) -> int:
    return int(np.prod(type.shape)) * np.dtype(type.value_type.to_pandas_dtype()).itemsize


def type_name(type: pa.DataType) -> str:
    """A column's type as it is shown: a tensor's with its shape."""
    name = (
        f"{type.value_type} {list(type.shape)}"
        if is_tensor(type)
        else re.sub(r"\b(item|element): ", "", str(type))
    )
    return re.sub(r"\bfloat\b", "float32", re.sub(r"\bdouble\b", "float64", name))
