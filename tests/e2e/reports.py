"""Runs of every task, by `perceive`, that reports are made of: each is made once, when it is first asked for."""

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import psutil

from tests.clips import moving, write_clip
from tests.e2e.command import kill_tree, perceive, start, wait_for, write_job
from tests.pipelines.staging import save_head
from tests.pipelines.tasks.tiny import FOURIER, save_class

EXAMPLES = Path(__file__).parents[2] / "examples"
TEXTS = {
    "walrus": "“The time has [MASK][MASK][MASK][MASK],” the Walrus said, “to talk of [MASK][MASK][MASK][MASK] things: "
    "of shoes, and ships, and sealing-wax, of cabbages and kings.” " * 2,
    "männlein": "Ein Männlein steht im W[MASK]lde ganz still und stumm.",
    "tags": "<script>alert('[MASK]')</script> & \"quotes\" [MASK]",
    "nothing": "There is nothing to fill in.",
}


class Reports:
    """The reports, by what they are of."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._made: dict[str, Path] = {}

    def of(self, name: str) -> Path:
        """A run's report.html."""
        if name not in self._made:
            folder = self.folder / name
            folder.mkdir()
            self._made[name] = MAKERS[name](self, folder) or reported(folder)
        return self._made[name]


def reported(folder: Path) -> Path:
    done = perceive("report", folder / "out", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    return Path(json.loads(done.stdout)["report"])


def ran(job: Path, *arguments: str, code: int = 0) -> None:
    done = perceive("run", job, *arguments)
    assert done.returncode == code, done.stderr


def _demo(reports: Reports, folder: Path, job: str = "reconstruct.yaml") -> None:
    ran(EXAMPLES / job, "-o", f"output.uri={folder / 'out'}")


def _of_demo(reports: Reports, folder: Path, task: str, media: Path, **changes: Any) -> None:
    ran(write_job(folder, media, Path("demo"), task=task, **{"options": {}, "compute": {}} | changes))


def _decode(reports: Reports, folder: Path) -> None:
    table = reports.of("latents").parents[2] / "data"
    _of_demo(reports, folder, "decode", table, options={"top_k": 3})


def _resumed(reports: Reports, folder: Path) -> None:
    """Looked at while it goes on, killed with all that belongs to it, looked at, and run again; MP4s are left of it."""
    changes: dict[str, Any] = {"options": {"top_k": 2, "video": "mp4"}, "compute": {"shard_windows": 2}}
    job = write_job(folder, EXAMPLES / "media", Path("demo"), name="resumed", **changes)
    run = start("run", job)
    wait_for(lambda: list((folder / "out").glob("runs/*/parts/*")), run)
    psutil.Process(run.pid).suspend()  # else it could be done before the report is
    shutil.copy(reported(folder), folder / "going.html")
    kill_tree(run)
    shutil.copy(reported(folder), folder / "killed.html")
    ran(job)


def _before(reports: Reports, folder: Path, name: str) -> Path:
    """What the resumed run's report was before."""
    reports.of("resumed")
    return reports.folder / "resumed" / name


def _images(reports: Reports, folder: Path) -> None:
    images = folder / "images"
    images.mkdir()
    for n in range(5):
        PIL.Image.fromarray(moving(4 * n, 90 + 10 * n, 80)).save(images / f"{n}.png")
    PIL.Image.fromarray(np.zeros((10, 10), np.uint8)).save(images / "black.png")
    checkpoint = save_class(FOURIER, folder / "tiny")
    ran(write_job(folder, images, checkpoint, task="image-classification", options={"top_k": 3}))


def _flow(reports: Reports, folder: Path) -> None:
    media = folder / "media"
    media.mkdir()
    write_clip(media / "wide.mp4", frames=6, size=(96, 48))
    write_clip(media / "small.webm", frames=3, size=(32, 24), codec="libvpx-vp9")
    checkpoint = save_head(folder / "tiny", "PerceiverForOpticalFlow")
    ran(write_job(folder, media, checkpoint, task="optical-flow", options={"overlap": 8}))


def _texts(reports: Reports, folder: Path, task: str, head: str, **options: Any) -> None:
    """With one that can't be read, named like an attack."""
    texts = folder / "texts"
    texts.mkdir()
    for name, text in TEXTS.items():
        (texts / f"{name}.txt").write_text(text, encoding="utf-8")
    (texts / '"><img src=x onerror=alert(1)>.txt').write_bytes(b"na\xefve")
    checkpoint = save_head(folder / "tiny", head)
    ran(
        write_job(folder, texts, checkpoint, task=task, options={"overlap": 20} | options, name="texts"),
        code=3,
    )


MAKERS: dict[str, Callable[[Reports, Path], Path | None]] = {
    "demo": _demo,
    "resumed": _resumed,
    "going": partial(_before, name="going.html"),
    "killed": partial(_before, name="killed.html"),
    "errors": partial(_texts, task="text-classification", head="PerceiverForSequenceClassification", top_k=3),
    "video-classification": partial(_demo, job="label.yaml"),
    "image-classification": _images,
    "optical-flow": _flow,
    "masked-lm": partial(_texts, task="masked-lm", head="PerceiverForMaskedLM", top_k=3),
    "latents": partial(_of_demo, task="latents", media=EXAMPLES / "media"),
    "decode": _decode,
}
