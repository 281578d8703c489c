"""What was raised in a worker, found in what Ray raises."""

import pickle
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from ray.exceptions import RayError, RayTaskError

from cluster.local import Resources
from perceiver_core.checkpoint import CheckpointError
from pipelines.decoding import DecoderError
from pipelines.limits import Limits
from pipelines.meter import Meter
from pipelines.plan import by_shard
from pipelines.pools import Node, fit_pools
from pipelines.stages import ModelPlan
from pipelines.storage import OutputError
from tests.clips import write_clip
from tests.pipelines.copying import Copying, CopyingRun


class OwnError(Exception):
    """Of ours."""


def _raise(*_: Any) -> Any:
    raise OwnError("What came. What to do.")


@dataclass(frozen=True)
class Broken:
    """A source or a storage that raises where it is told to."""

    at: str

    kept = pa.schema([])

    def reader(self) -> Any:
        return _raise() if self.at == "Decode starts" else self

    def close(self) -> None:
        return

    def open(self, item: Any) -> Any:
        raise DecoderError("What came. What to do.")

    def exists(self, name: str) -> bool:
        return bool(_raise())


class Failing(Copying):
    """Predict fails."""

    predict = _raise  # type: ignore[assignment]


@pytest.mark.e2e
@pytest.mark.parametrize("where", ["Decode starts", "Decode", "Predict starts", "Predict", "write_part"])
def test_what_a_stage_raises_is_found_in_what_ray_raises(
    ray_here: Resources, checkpoint: Path, tmp_path: Path, where: str
) -> None:
    from pipelines.pipeline import build, cause_of, commits  # ray.data, once its environment is set

    (tmp_path / "media").mkdir()
    write_clip(tmp_path / "media/clip.mp4", frames=16, audio_codec=None)
    run = CopyingRun.over(tmp_path / "media", tmp_path / "out", "tensors")
    task = Failing(top_k=2) if where == "Predict" else run.task
    source: Any = Broken(where) if where.startswith("Decode") else run.source
    sink = replace(run.sink, storage=Broken(where)) if where == "write_part" else run.sink
    model = ModelPlan(str(tmp_path if where == "Predict starts" else checkpoint), "float32", 3, 5000)
    pools = fit_pools([Node(ray_here.cpus)], None, None)
    dataset = build(
        by_shard(run.plan), task, run.config, source, Limits(), model, "cpu", 1, sink, pools, Meter.start()
    )
    with pytest.raises(RayError) as raised:
        list(commits(dataset))
    cause = cause_of(raised.value)
    if where == "Predict starts":
        assert isinstance(cause, CheckpointError)
        assert str(cause).startswith(str(tmp_path))
    else:
        assert type(cause).__name__ == ("DecoderError" if where == "Decode" else "OwnError")
        assert str(cause) == "What came. What to do."


def test_what_ray_appends_to_an_error_is_none_of_its_text(ray_here: Resources) -> None:
    from ray.data._internal.util import _annotate_exception_with_retry_context

    from pipelines.pipeline import cause_of

    for ours in (ValueError("What came."), OSError(28, "No space left", "/out"), OutputError("What came.")):
        text = str(ours).removesuffix(": '/out'")
        _annotate_exception_with_retry_context(
            ours,
            description="apply UDF transform",
            attempts=1,
            max_attempts=1,
            total_backoff_s=0.0,
            exception_str="",
        )
        theirs = RayTaskError("submit", "Traceback", pickle.loads(pickle.dumps(ours)), ip="127.0.0.1")
        assert str(cause_of(theirs.as_instanceof_cause())) == text


def test_an_error_without_another_inside_is_its_own_cause(ray_here: Resources) -> None:
    from pipelines.pipeline import cause_of

    for error in (ValueError("ours"), RayError("theirs"), KeyboardInterrupt()):
        assert cause_of(error) is error
