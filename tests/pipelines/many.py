"""Plans as many objects as it is told to, of a store that makes them up; prints what that took, as JSON.

A process of its own, so that its memory is the plan's: python -m tests.pipelines.many walk|pages COUNT
"""

import json
import resource
import sys
import time
from collections.abc import Iterator
from typing import Any

import fsspec
from fsspec.spec import AbstractFileSystem

from pipelines.contents import IMAGE
from pipelines.decoding import Decoder
from pipelines.items import Item
from pipelines.limits import Limits
from pipelines.plan import Probed, count_windows, cut_shards, digest, shards
from pipelines.sources.files import Files
from tests.conftest import tiny_config
from tests.pipelines.copying import Copying

FOLDER = 1000  #: objects in a folder, or in a page


class Many(AbstractFileSystem):
    """COUNT objects in folders of a thousand."""

    protocol = "many"
    cachable = False

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        return {"name": self._strip_protocol(path), "type": "directory", "size": 0}

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[dict[str, Any]]:
        path = self._strip_protocol(path)
        if path.count("/") == 0:
            folders = range(COUNT // FOLDER)
            return [{"name": f"{path}/{i:05d}", "type": "directory", "size": 0} for i in folders]
        return [
            {
                "name": f"{path}/{i:05d}.jpg",
                "type": "file",
                "size": i,
                "etag": f'"{i:032x}"',
                "more": {"a": [i]},
            }
            for i in reversed(range(FOLDER))
        ]


class Pages(Many):
    """The same objects, as S3 lists them."""

    protocol = "pages"

    def call_s3(self, method: str, Bucket: str, Prefix: str, ContinuationToken: str = "0") -> Any:  # noqa: N803
        page = int(ContinuationToken)
        keys = (f"{Prefix}{page:05d}/{i:05d}.jpg" for i in range(FOLDER))
        return {
            "Contents": [{"Key": key, "Size": i, "ETag": f'"{i:032x}"'} for i, key in enumerate(keys)],
            "IsTruncated": page + 1 < COUNT // FOLDER,
            "NextContinuationToken": str(page + 1),
        }


def probed(items: Iterator[Item]) -> Iterator[Probed]:
    for item in items:
        yield Probed(item, 1, None, None)


if __name__ == "__main__":
    COUNT = int(sys.argv[2])
    fsspec.register_implementation("many", Many)
    fsspec.register_implementation("pages", Pages)
    decoder = Decoder(Copying(), tiny_config(), Limits())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.monotonic()
    source = Files(({"walk": "many://bucket", "pages": "pages://bucket/in"}[sys.argv[1]],), IMAGE)
    plan = cut_shards(probed(source.items()), 64)
    planned = time.monotonic() - began
    print(
        json.dumps(
            {
                "rows": plan.num_rows,
                "windows": count_windows(plan),
                "shards": len(shards(plan)),
                "sorted": plan["uri"].to_pylist() == sorted(plan["uri"].to_pylist()),
                "ids": len(set(plan["item_id"].to_pylist())),
            }
            if COUNT <= 10_000
            else {"rows": plan.num_rows, "shards": len(shards(plan)), "digest": digest(plan)}
            | {"planned_s": planned, "all_s": time.monotonic() - began}
            | {"table": plan.nbytes}
            | {"grown": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024}
        )
    )
