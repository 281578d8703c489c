"""What reports read of an output: columns of its parts, rows, and parts of its MP4s, wherever they lie."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.excerpts import shots_of_mp4
from pipelines.mp4 import Shot, write_mp4
from pipelines.quality import measure, take
from pipelines.storage import Storage, created
from tests.clips import moving

# gcsfs hands aiohttp whole files.
pytestmark = pytest.mark.filterwarnings("ignore:Sending a large body directly:ResourceWarning")


def test_it_is_the_same_on_every_storage(storage: Storage, tmp_path: Path) -> None:
    table = pa.table(
        {
            "item_id": ["a", "a", "b"], "uri": ["/a", "/a", "/b"], "window": [0, 1, 0], "video_psnr": [30.0, 10, 20],
            "video": pa.FixedShapeTensorArray.from_numpy_ndarray(np.arange(36, dtype=np.uint8).reshape(3, 2, 2, 3)),
        }
    )  # fmt: skip
    with created(storage, "data/one.arrow") as draft, pa.ipc.new_file(str(draft), table.schema) as file:
        file.write_table(table, max_chunksize=2)
    with created(storage, "data/two.parquet") as draft:
        pq.write_table(table.drop_columns(["video"]), draft, row_group_size=2)
    found = measure(storage, ["data/one.arrow", "data/two.parquet"], seed=0, count=1)
    assert (found.rows, found.spreads["video_psnr"].total) == (6, 6)
    assert (found.best[0].item_id, found.best[0].window, found.worst[0].value) == ("a", 0, 10)
    assert take(storage, "data/one.arrow", 2, ["uri"]).to_pylist() == [{"uri": "/b"}]
    assert take(storage, "data/two.parquet", 2)["video_psnr"].to_pylist() == [20]

    frames = np.stack([moving(n, 48, 32) for n in range(50)])
    with created(storage, "video/one.mp4") as draft:
        write_mp4(draft, [Shot(frames, np.zeros(0, np.float32))], 25, 16_000)
    shots, _ = shots_of_mp4(lambda: storage.open("video/one.mp4"), 1.0, 0.4)
    pictures = [shot.video[0] for shot in shots]
    assert len(pictures) == 10
    assert np.abs(pictures[0].astype(int) - frames[25]).mean() < 12
    with pytest.raises(FileNotFoundError):
        measure(storage, ["data/gone.arrow"], seed=0, count=1)
