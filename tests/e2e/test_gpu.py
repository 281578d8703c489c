"""Whole runs on a GPU: the CPU's answers, its memory short and its context broken for real; `make gpus` runs this."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pyarrow as pa
import pytest
import torch

from cluster.local import Resources, local_ray
from jobs import events
from jobs.environment import environment
from pipelines import reader
from pipelines.meter import Meter
from pipelines.plan import shards
from pipelines.storage import open_storage
from pipelines.tasks.multimodal_autoencoding import MultimodalAutoencoding
from tests.clips import write_clip
from tests.e2e.command import perceive, write_job
from tests.pipelines.tasks.tiny import FOURIER, save_class
from tests.pipelines.test_pipeline import plan_of, run

pytestmark = [pytest.mark.gpus, pytest.mark.usefixtures("gpu")]

DEMO = Path(__file__).parents[2] / "examples/reconstruct.yaml"


def answer(*arguments: str | Path, code: int = 0) -> dict[str, Any]:
    """What a command says with --json."""
    done = perceive(*arguments, "--json")
    assert done.returncode == code, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def summary(out: Path) -> dict[str, Any]:
    [made] = out.glob("runs/*/summary.json")
    found: dict[str, Any] = json.loads(made.read_text())
    return found


def happened(out: Path, kind: str) -> list[dict[str, Any]]:
    [run] = out.glob("runs/*/run.json")
    return [event for event in events.read(open_storage(str(out)), run.parent.name) if event["event"] == kind]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's outputs: on the CPU, on the GPU in float32, and there by two workers as it is by default."""
    folder = tmp_path_factory.mktemp("demo")
    ways = {
        "cpu": ["compute.device=cpu"],
        "float32": ["compute.device=cuda", "model.dtype=float32"],
        "auto": ["compute.predict_workers=2", "compute.gpus_per_worker=0.5", "compute.shard_windows=2"],
    }
    for name, overrides in ways.items():
        answer(
            "run",
            DEMO,
            *(part for one in [f"output.uri={folder / name}", *overrides] for part in ("-o", one)),
        )
    return folder


def test_doctor_finds_it() -> None:
    checks = {check["name"]: check for check in answer("doctor")["checks"]}
    assert checks["gpu 0"]["state"] == "ok", checks["gpu 0"]
    assert environment()["gpu"]  # its type, as Ray calls it


def test_float32_is_what_the_cpu_computes(demo: Path) -> None:
    assert summary(demo / "float32")["attempts"][-1]["device"] == "cuda"
    tables = [reader.dataset(str(demo / name)).to_table() for name in ("cpu", "float32")]
    assert tables[0]["uri"].equals(tables[1]["uri"])
    assert tables[0]["labels"].equals(tables[1]["labels"])
    found = answer("compare", demo / "cpu", demo / "float32")
    assert found["items"]["both"] == 8, found["items"]
    for column in found["numbers"]:
        assert column["psnr"] is None or column["psnr"] >= 80, (
            column
        )  # None: nothing differs, or no known peak
        assert column["relative"] <= (1 / 255 if column["name"] == "video" else 1e-4), column


def test_bfloat16_is_the_default_and_near_enough(demo: Path) -> None:
    about = summary(demo / "auto")
    assert about["fingerprint"]["dtype"] == "bfloat16"
    assert about["stages"]["predict"]["workers"] == 2
    assert 1 << 20 < about["device_peak"] < 64 << 30
    assert about["attempts"][-1]["environment"]["gpu"]
    found = answer("compare", demo / "float32", demo / "auto")
    assert found["items"]["compared"] == 8
    near = {column["name"]: column["psnr"] for column in found["numbers"]}
    assert near["video"] >= 40, near
    assert near["audio"] >= 40, near
    page = perceive("report", demo / "auto")
    assert page.returncode == 0, page.stderr


def test_a_batch_that_does_not_fit_is_halved(tmp_path: Path) -> None:
    """Somebody else holds all of the GPU's memory but 3 GiB; 64 pictures at once take more in a model not folded."""
    images = tmp_path / "images"
    images.mkdir()
    noise = np.random.default_rng(0)
    for n in range(64):
        PIL.Image.fromarray(noise.integers(0, 256, (256, 256, 3), dtype=np.uint8)).save(
            images / f"{n:02d}.png"
        )
    save_class(FOURIER, tmp_path / "model", image_size=224, num_latents=64)
    model = {"checkpoint": str(tmp_path / "model"), "dtype": "float32", "fold": False}
    compute = {"device": "cuda", "batch": 64, "shard_windows": 64}

    def out(name: str, **changes: Any) -> Path:
        job = write_job(
            tmp_path / name, images, tmp_path / "model", task="image-classification", model=model,
            compute=compute | changes,
        )  # fmt: skip
        answer("run", job)
        return tmp_path / name / "out"

    free, _ = torch.cuda.mem_get_info()
    held = torch.empty(free - (3 << 30), dtype=torch.uint8, device="cuda")
    short = out("short")
    del held
    torch.cuda.empty_cache()
    calm = out("calm", batch=8)
    halvings = happened(short, "oom_halved")
    assert [one["batch"] for one in halvings] == [32, 16, 8, 4][: len(halvings)]
    assert summary(short)["oom_halvings"] == len(halvings) >= 1
    assert not happened(calm, "oom_halved")
    tables = [reader.dataset(str(one)).to_table() for one in (short, calm)]
    assert tables[0].num_rows == 64
    assert tables[0]["uri"].equals(tables[1]["uri"])
    for one, other in zip(*(table["scores"].to_pylist() for table in tables), strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-3)


@pytest.fixture
def gpu_ray() -> Iterator[Resources]:
    with local_ray(cpus=8, gpus=1) as resources:
        yield resources


def test_a_broken_context_costs_a_process_and_no_row(
    gpu_ray: Resources, checkpoint: Path, tmp_path: Path
) -> None:
    media = tmp_path / "media"
    media.mkdir()
    for n in range(3):
        write_clip(media / f"{n}.mp4", frames=16 * 4, audio_codec="aac")
    plan, config = plan_of(media, checkpoint, shard_windows=4)

    class Asserting(MultimodalAutoencoding):
        """Reads beyond a tensor's end on the GPU, once."""

        marker = tmp_path / "marker"

        def predict(self, model: Any, batch: Any, chunk: int) -> dict[str, np.ndarray]:
            if not self.marker.exists():
                self.marker.touch()
                table = torch.zeros(4, device=model.device)
                table[torch.tensor([9], device=model.device)].sum().item()
            return super().predict(model, batch, chunk)

    def rows(out: Path, task: MultimodalAutoencoding, meter: Meter) -> pa.Table:
        _, made = run(plan, config, checkpoint, out, gpu_ray, task, meter, device="cuda")
        assert len(made) == len(shards(plan)) == 3
        return reader.dataset(str(out)).to_table()

    meter = Meter.start()
    got = rows(tmp_path / "out", Asserting(top_k=2), meter)
    told = [one for one in meter.heard() if one["kind"] == "worker_replaced"]
    assert [one["stage"] for one in told] == ["predict"]
    assert "device-side assert" in told[0]["why"]
    assert got.equals(rows(tmp_path / "calm", MultimodalAutoencoding(top_k=2), Meter.start()))
