"""A job whose checkpoint is fetched, and whose answers are one of two references'."""

import functools
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from perceiver_core.checkpoint import inspect
from tests.clips import write_clip
from tests.e2e.command import perceive, write_job

pytestmark = pytest.mark.e2e


@pytest.fixture
def url(checkpoint: Path) -> Iterator[str]:
    """The tiny checkpoint, on a web server of this machine."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(checkpoint.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/{checkpoint.name}"
        server.shutdown()
        thread.join()


def test_a_checkpoint_from_a_url(
    url: str, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PERCEIVER_CACHE", str(tmp_path / "cache"))
    (tmp_path / "media").mkdir()
    write_clip(tmp_path / "media/clip.mp4", frames=5)
    job = write_job(tmp_path, tmp_path / "media", checkpoint)
    monkeypatch.setenv("A_TOKEN", "canary-0123")
    url += "?token=${env:A_TOKEN}"
    done = perceive("run", job, "-o", f"model.checkpoint={url}")
    assert done.returncode == 0, done.stderr
    assert "MB of the checkpoint: " in done.stderr
    stored = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not [path for path in stored if b"canary-0123" in path.read_bytes()]
    assert "canary-0123" not in done.stdout + done.stderr
    assert len(list((tmp_path / "cache/checkpoints").iterdir())) == 1
    (run,) = (path.parent for path in (tmp_path / "out/runs").glob("*/run.json"))
    assert f"checkpoint: {url}\n" in next(run.glob("planned-*/spec.yaml")).read_text()
    what = json.loads((run / "run.json").read_text())["fingerprint"]
    assert what["checkpoint"] == inspect(checkpoint).digest
    assert what["reference"] == "hf"

    again = perceive("run", job)  # the same weights, wherever they come from, are the same run
    assert again.returncode == 0, again.stderr
    assert "no windows were left to do" in again.stdout
    other = perceive("run", job, "-o", "model.reference=deepmind")
    assert other.returncode == 2
    assert "which differs from this job: reference was 'hf', is 'deepmind'" in other.stderr
