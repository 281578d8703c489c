"""`perceive run` on texts and for optical flow, from encoded files to the published table."""

import csv
import itertools
import json
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from perceiver_core import PerceiverTokenizer, estimate_flow
from perceiver_core.checkpoint import load
from pipelines import reader
from pipelines.flows import in_colour
from tests.clips import write_clip
from tests.e2e.command import perceive, write_job
from tests.pipelines.staging import save_head

pytestmark = pytest.mark.e2e

TEXTS = {"long": "Ein Männlein [MASK] steht im Walde. " * 4, "plain": "no mask", "short": "g[MASK]t"}


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    folder = tmp_path / "texts"
    folder.mkdir()
    for name, text in TEXTS.items():
        (folder / f"{name}.txt").write_text(text, encoding="utf-8")
    (folder / "latin.txt").write_text("naïf", encoding="latin-1")
    return folder


def test_masked_lm(texts: Path, tmp_path: Path) -> None:
    checkpoint = save_head(tmp_path / "checkpoint", "PerceiverForMaskedLM")
    options = {"top_k": 2, "overlap": 20, "positions": []}
    job = write_job(tmp_path, texts, checkpoint, task="masked-lm", options=options)
    done = perceive("run", job)
    assert done.returncode == 3, done.stderr
    assert "latin.txt (decode): expected UTF-8; got b'\\xeff' at byte 2 of 4" in done.stdout
    out = str(tmp_path / "out")
    assert {Path(path).suffix for path in reader.files(out)} == {".parquet"}
    assert not list((tmp_path / "out/runs").glob("*/parts/*"))
    table = reader.dataset(out).to_table()
    rows = {Path(row["uri"]).stem: row for row in table.to_pylist()}  # of a text's rows, the last one
    assert table.schema.field("tokens").metadata[b"help"].startswith(b"bytes: ")
    assert rows["plain"]["filled"] == "no mask"
    ids = PerceiverTokenizer()(TEXTS["short"])["input_ids"]
    with torch.inference_mode():
        logits = load(checkpoint)(torch.tensor([ids])).logits
    scores, tokens = logits.softmax(-1)[0, [2], 6:262].topk(2)
    assert (rows["short"]["positions"], rows["short"]["tokens"]) == ([1], tokens.tolist())
    np.testing.assert_allclose(rows["short"]["scores"], scores.numpy(), rtol=1e-4)
    positions = [p for row in table.to_pylist() if row["uri"].endswith("long.txt") for p in row["positions"]]
    assert positions == [14 + n * 32 for n in range(4)]

    again = perceive("run", job)  # the options are the same after JSON, so the run is
    assert again.returncode == 3, again.stderr
    assert "no windows were left to do" in again.stdout


def test_text_classification(texts: Path, tmp_path: Path) -> None:
    checkpoint = save_head(tmp_path / "checkpoint", "PerceiverForSequenceClassification")
    options = {"top_k": 1, "overlap": 20, "csv": True}
    job = write_job(tmp_path, texts, checkpoint, task="text-classification", options=options)
    done = perceive("run", job, "--json")
    assert done.returncode == 3, done.stderr
    result = json.loads(done.stdout)
    assert (result["items"], result["quarantined"], result["videos"]) == (4, 1, None)
    assert result["files"] == str(tmp_path / "out/labels.csv")
    names = load(checkpoint).config.id2label
    rows = {
        Path(row["uri"]).stem: row for row in reader.dataset(str(tmp_path / "out")).to_table().to_pylist()
    }
    assert rows["long"]["window"] > 0
    with (tmp_path / "out/labels.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [(line["uri"], line["label_1"]) for line in lines][-1] == (
        rows["short"]["uri"],
        rows["short"]["labels"][0],
    )
    for name in ("plain", "short"):
        ids = PerceiverTokenizer()(TEXTS[name], split_special_tokens=True)["input_ids"]
        with torch.inference_mode():
            expected = load(checkpoint)(torch.tensor([ids])).logits.softmax(-1)[0]
        assert rows[name]["labels"] == [names[int(expected.argmax())]]
        np.testing.assert_allclose(rows[name]["scores"], [float(expected.max())], rtol=1e-4)


def test_optical_flow(tmp_path: Path) -> None:
    checkpoint = save_head(tmp_path / "checkpoint", "PerceiverForOpticalFlow")
    media = tmp_path / "media"
    media.mkdir()
    write_clip(media / "wide.mp4", frames=4, size=(46, 24))
    write_clip(media / "tile.webm", frames=3, size=(32, 24), codec="libvpx-vp9")
    write_clip(media / "still.mp4", frames=1)
    options = {"overlap": 8, "png": True, "flo": True}
    job = write_job(tmp_path, media, checkpoint, task="optical-flow", options=options)
    done = perceive("run", job)
    assert done.returncode == 3, done.stderr
    assert "still.mp4 (probe): expected a video of 2 frames or more" in done.stdout
    table = reader.dataset(str(tmp_path / "out")).to_table()
    assert reader.files(str(tmp_path / "out"))[0].endswith(".arrow")
    model = load(checkpoint)
    expected = []
    for name in ("tile.webm", "wide.mp4"):
        with av.open(str(media / name)) as container:
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        for pair in itertools.pairwise(frames):
            inputs = torch.from_numpy(np.stack(pair)).permute(0, 3, 1, 2)[None]
            expected.append(estimate_flow(model, inputs, min_overlap=8)[0].numpy())
    assert table.num_rows == len(expected) == 2 + 3
    found = zip(
        table.drop_columns(["flow"]).to_pylist(), reader.to_arrays(table, "flow"), expected, strict=True
    )
    for row, flow, answer in found:
        np.testing.assert_allclose(flow, answer, atol=1e-4 * np.abs(answer).max())
        with Image.open(tmp_path / "out" / row["png"]) as picture:
            assert np.array_equal(np.asarray(picture), in_colour(flow))
        data = (tmp_path / "out" / row["flo"]).read_bytes()
        assert np.array_equal(np.frombuffer(data[12:], "<f4").reshape(flow.shape), flow)
    assert len(list((tmp_path / "out/flow").iterdir())) == 2 * 5
    assert f"Beside the table: {tmp_path / 'out/flow'}" in done.stdout
