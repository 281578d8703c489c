"""perceive models: the list, and what a checkpoint holds."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

from jobs.cli import main
from perceiver_core import checkpoint as checkpoints
from perceiver_core.config import PUBLISHED
from perceiver_core.sources import DEMO

OF_VIDEOS = ["multimodal-autoencoding", "video-classification", "latents", "decode"]


def models(*arguments: str, code: int = 0) -> Any:
    done = CliRunner().invoke(main, ["models", *arguments])
    assert done.exit_code == code, done.output
    return done


def test_the_list() -> None:
    rows = json.loads(models("--json").stdout)
    assert [row["name"] for row in rows] == [*PUBLISHED, "demo"]
    assert rows[0] == {
        "name": "deepmind/language-perceiver",
        "architecture": "PerceiverForMaskedLM",
        "parameters": 201_108_230,
        "tasks": rows[0]["tasks"],
        "purpose": "masked bytes of UTF-8 text",
    }
    assert rows[5]["tasks"] == rows[6]["tasks"] == OF_VIDEOS
    assert "decode" not in rows[4]["tasks"]  # needs the frames, too
    shown = models().stdout
    for row in rows:
        line = next(line for line in shown.splitlines() if row["name"] in line)
        assert row["architecture"] in line
        assert f"{row['parameters']:,}" in line
        assert row["purpose"] in line
        assert all(task in line for task in row["tasks"])


def test_a_checkpoint(checkpoint: Path) -> None:
    info = checkpoints.inspect(checkpoint)
    described = json.loads(models(str(checkpoint), "--json").stdout)
    assert described == {
        "checkpoint": str(checkpoint),
        "folder": str(checkpoint),
        "architecture": "PerceiverForMultimodalAutoencoding",
        "tasks": OF_VIDEOS,
        "digest": info.digest,
        "dtypes": ["float32"],
        "tensors": info.tensors,
        "parameters": info.parameters,
        "bytes": info.bytes,
        "config": {
            "num_latents": 8,
            "d_latents": 16,
            "d_model": 704,
            "num_blocks": 1,
            "num_self_attends_per_block": 1,
            "num_self_attention_heads": 2,
            "num_cross_attention_heads": 1,
            "num_labels": 4,
            "reference": "hf",
        },
    }
    shown = {line.split("  ")[0]: line.split("  ")[-1].strip() for line in _lines(str(checkpoint))}
    assert shown["digest"] == info.digest
    assert shown["dtype"] == "float32"
    assert shown["parameters"] == f"{info.parameters:,}"
    assert shown["latents"] == "8 of 16 channels"
    assert shown["layers"] == "1 x 1 self-attentions"
    assert shown["labels"] == "4"


def _lines(*arguments: str) -> list[str]:
    return [line.strip() for line in models(*arguments).stdout.splitlines()]


def test_a_pickle_says_what_is_not_known(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text((checkpoint / "config.json").read_text())
    torch.save(load_file(checkpoint / "model.safetensors"), tmp_path / "pytorch_model.bin")
    assert json.loads(models(str(tmp_path), "--json").stdout)["parameters"] is None
    told = [line for line in _lines(str(tmp_path)) if "not known without reading the tensors" in line]
    assert [line.split()[0] for line in told] == ["dtype", "tensors", "parameters"]


def test_the_demo() -> None:
    assert json.loads(models("demo", "--json").stdout)["folder"] == str(DEMO)


@pytest.mark.parametrize("as_json", [False, True])
def test_a_bad_checkpoint(tmp_path: Path, as_json: bool) -> None:
    done = models(str(tmp_path), *(["--json"] if as_json else []), code=2)
    text = f"{tmp_path} must have a config.json; got nothing. Give the folder that save_pretrained wrote."
    if as_json:
        assert json.loads(done.stdout) == {"error": text, "exit_code": 2}
        assert done.stderr == ""
    else:
        assert done.stderr == text + "\n"
        assert done.stdout == ""


@pytest.mark.parametrize("as_json", [False, True])
def test_a_url_tells_its_progress_on_stderr(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, as_json: bool
) -> None:
    import fsspec

    monkeypatch.setenv("PERCEIVER_CACHE", str(tmp_path))
    fs = fsspec.filesystem("memory")
    for file in DEMO.iterdir():
        fs.pipe_file(f"/models/demo/{file.name}", file.read_bytes())
    done = models("memory://models/demo", *(["--json"] if as_json else []))
    assert done.stderr == ("" if as_json else "MB of the checkpoint: 4\n")
    assert str(tmp_path) in done.stdout
    fs.store.clear()
