"""The storages that the tests here run on."""

import os
import uuid
from collections.abc import Callable, Mapping
from typing import Any

import fsspec

from pipelines.storage import Storage, open_storage
from pipelines.storage.objects import ObjectStorage
from tests.faults.azure import azure
from tests.faults.gcs import gcs
from tests.faults.store import Store, s3

STORES = {"s3": s3, "gs": gcs, "az": azure}
#: Imported here: processes that are forked from here need not.
KINDS = [fsspec.get_filesystem_class(scheme) for scheme in STORES]
UPLOAD = {"s3": "PUT /bucket/", "gs": "POST /upload/", "az": "PUT /account/bucket/"}  # of a small file
CONTENT = {"s3": "GET /bucket/", "gs": "GET /download/", "az": r"GET /account/bucket/(?!\S*comp=list)"}
LISTING = {"s3": "list-type", "gs": r"GET /storage/v1/b/bucket/o\?", "az": "comp=list"}
LAST = {"gs": "POST /session/", "az": "comp=blocklist"}  # request of an upload in parts


def fresh(stores: Mapping[str, Store], scheme: str) -> ObjectStorage:
    stores[scheme].proxy.faults.clear()
    stores[scheme].proxy.down_until = 0.0
    storage = open_storage(f"{scheme}://bucket/out pût {uuid.uuid4().hex}")
    assert isinstance(storage, ObjectStorage)
    return storage


def put(storage: Storage, name: str, data: bytes) -> bool:
    with storage.draft() as draft:
        draft.write_bytes(data)
        return storage.create(name, draft)


def scheme_of(storage: Storage) -> str:
    return storage.uri.partition("://")[0]


def failing(number: int) -> Callable[..., None]:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))

    return fail
