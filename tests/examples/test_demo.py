"""The demo: its clips, its training, its checkpoint, its job file."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

from jobs.spec import load_job
from perceiver_core import PerceiverForMultimodalAutoencoding
from perceiver_core.checkpoint import inspect
from perceiver_core.sources import DEMO
from pipelines import reader
from pipelines.media.info import probe
from tests.e2e.command import perceive

EXAMPLES = Path(__file__).parent.parent.parent / "examples"


def test_a_clip_is_a_function_of_its_label_and_seed() -> None:
    from demo_clips import CLASSES, LABELS, make_clip

    assert len(LABELS) == len(CLASSES) == 8
    seen = set()
    for label in range(8):
        clip, again = make_clip(label, 7, 20), make_clip(label, 7, 20)
        assert clip.frames.shape == (20, 64, 64, 3)
        assert clip.sound.shape == (20 * 1920,)
        np.testing.assert_array_equal(clip.frames, again.frames)
        np.testing.assert_array_equal(clip.sound, again.sound)
        assert 0.1 < np.abs(clip.sound).max() <= 1
        seen |= {hashlib.sha256(make_clip(label, seed, 2).frames.tobytes()).hexdigest() for seed in range(4)}
    assert len(seen) == 32


def test_clips_move_too_much_for_their_mean_frame() -> None:
    from demo_clips import make_clip

    for label in range(8):
        psnr = []
        for seed in range(8):
            frames = make_clip(label, seed, 16).frames / 255
            psnr.append(-10 * np.log10(np.square(frames - frames.mean(0)).mean()))
        assert np.mean(psnr) < 20


def test_training_resumes_where_it_stopped(tmp_path: Path) -> None:
    from train_demo import Windows, start, take_step

    windows = Windows(16)
    straight = start(steps=4, rate=1e-3)
    for _ in range(4):
        figures = take_step(straight, windows, 4, 32, 8)
    assert all(np.isfinite(figures))
    first = start(steps=4, rate=1e-3)
    for _ in range(2):
        take_step(first, windows, 4, 32, 8)
    first.save(tmp_path / "state.pt")
    second = start(steps=4, rate=1e-3)
    second.load(tmp_path / "state.pt")
    while second.step < 4:
        take_step(second, windows, 4, 32, 8)
    for name, tensor in straight.model.state_dict().items():
        torch.testing.assert_close(second.model.state_dict()[name], tensor, msg=name)
    assert not torch.equal(
        straight.model.perceiver.embeddings.latents, start(4, 1e-3).model.perceiver.embeddings.latents
    )


def test_training_windows_are_what_the_pipeline_decodes() -> None:
    """The mean of 2x2 blocks is the pipeline's bilinear resize at a whole ratio of two."""
    from demo_clips import make_clip
    from train_demo import Windows

    from pipelines.media.resize import resize

    clip = make_clip(3, 0, 16)
    windows = Windows(4)
    for frame, small in zip(clip.frames, windows.images[3], strict=True):
        assert np.abs(resize(frame, 32, 32).astype(int) - small.numpy()).max() <= 1


@pytest.fixture(scope="module")
def demo() -> PerceiverForMultimodalAutoencoding:
    return PerceiverForMultimodalAutoencoding.from_pretrained("demo")


def test_the_checkpoint_comes_along_by_name() -> None:
    from demo_clips import LABELS

    found = inspect("demo")
    assert found.path == DEMO
    assert tuple(found.config.id2label.values()) == LABELS
    assert sum(path.stat().st_size for path in DEMO.iterdir()) < 8 << 20


def test_it_reconstructs_unseen_clips(demo: PerceiverForMultimodalAutoencoding) -> None:
    """A quarter of each class's promise; `make demo-checkpoint` prints all 256 clips' figures."""
    from demo_clips import LABELS, UNSEEN
    from evaluate_demo import evaluate

    scores = [evaluate(demo, label, UNSEEN + seed) for label in range(len(LABELS)) for seed in (0, 1)]
    video = -10 * np.log10([score.video for score in scores])
    mean_frame = -10 * np.log10([score.mean_frame for score in scores])
    sound = 10 * np.log10([score.silence / score.sound for score in scores])
    assert video.mean() >= 22
    assert mean_frame.mean() < 20
    assert (video - mean_frame).mean() >= 3
    assert sound.mean() >= 3
    assert np.mean([score.right for score in scores]) >= 0.9


def test_the_example_media_are_clips_of_the_demo() -> None:
    from demo_clips import LABELS

    files = sorted((EXAMPLES / "media").iterdir())
    assert sorted(path.stem.replace("-", " ") for path in files) == sorted(LABELS)
    for path in files:
        with path.open("rb") as file:
            info = probe(file)
        assert (info.video_codec, info.audio_codec) == ("h264", "aac")
        assert 32 <= info.frames <= 67


def test_the_example_job_stands_as_it_is_shown() -> None:
    job = load_job(str(EXAMPLES / "reconstruct.yaml"))
    assert job.model.checkpoint == "demo"
    readme = (EXAMPLES.parent / "README.md").read_text()
    shown = (EXAMPLES / "reconstruct.yaml").read_text().split("\n", 1)[1]  # without its first comment
    assert shown in readme


@pytest.mark.e2e
def test_the_demo_names_its_clips(tmp_path: Path) -> None:
    """examples/label.yaml, as it stands."""
    done = perceive("run", EXAMPLES / "label.yaml", "-o", f"output.uri={tmp_path}/out", "--json")
    assert done.returncode == 0, done.stderr
    rows = reader.dataset(str(tmp_path / "out")).to_table(columns=["uri", "labels"]).to_pylist()
    assert len(rows) == 28
    assert all(row["labels"][0].replace(" ", "-") == Path(row["uri"]).stem for row in rows)
    assert (tmp_path / "out/labels.csv").read_text().count("\n") == 29
