"""The report of a run that there was: done, killed, resumed, failed, and with an input that is gone or hostile."""

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from jobs.cli import main
from jobs.cli.report import _shown
from jobs.finding import find, refreshed
from jobs.report import originals
from jobs.report.making import Report, make_report
from jobs.store import RunStore, UnknownRunError
from pipelines.storage import open_storage
from tests.jobs.bucket import BAD, Bucket, fill
from tests.jobs.inprocess import Kill, NearDecoder
from tests.jobs.report.looking import Seen
from tests.pipelines.committing import NoProgress
from tests.pipelines.staging import save_head


class Near(NearDecoder):
    """A decoder without a process, for texts that are known."""

    def close(self) -> None:
        return


@pytest.fixture(autouse=True)
def _near(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(originals, "Decoder", Near)


def reported(bucket: Bucket, tmp_path: Path) -> tuple[Report, Seen]:
    store = RunStore(tmp_path / "store")
    run, status = refreshed(find(bucket.out, store), store)
    made = make_report(run, run.state, status.message, NoProgress())
    seen = Seen(Path(made.where).read_bytes())
    seen.check()
    return made, seen


def headings(seen: Seen) -> list[str]:
    return [dict(attributes).get("id") or "" for tag, attributes in seen.elements if tag == "section"]


def test_a_run_that_is_done(tmp_path: Path, texts_model: Path, kill: Kill) -> None:
    bucket = Bucket(tmp_path, texts_model)
    fill(bucket, bad="ad")
    bucket.run()
    made, seen = reported(bucket, tmp_path)
    assert made.where == str(open_storage(bucket.out).where(f"runs/{made.summary.run_id}/report.html"))
    assert headings(seen) == ["run", "quality", "gallery", "quarantine"]  # no Ray, no progress
    assert "Done, with quarantined items" in seen.text
    assert "2 of 7 items are not whole in the table." in seen.text
    assert "Of 5 rows that this run wrote." in seen.text
    assert "TextError" in seen.text
    assert str(bucket.folder / "a.txt") in seen.text
    for text in ("BBBB", "CCCCC", "EEEEEEE"):
        assert text in seen.text
    assert "AAA" not in seen.text
    assert {"Most certain", "Least certain"} <= {*seen.texts}
    # The summary that it carries is the one that is kept.
    kept = json.loads((Path(bucket.out) / f"runs/{made.summary.run_id}/summary.json").read_text())
    assert seen.island == kept == json.loads(json.dumps(asdict(made.summary)))


def test_a_run_that_was_killed_and_then_resumed(tmp_path: Path, killed: Bucket) -> None:
    made, seen = reported(killed, tmp_path)
    assert 0 < made.summary.shards_done < made.summary.shards
    assert made.state == "failed"
    assert "so far" in seen.text
    assert f"Of {made.summary.rows:,} rows that this run wrote." in seen.text
    assert "TextError" in seen.text
    assert "gallery" in headings(seen)
    killed.run()
    made, seen = reported(killed, tmp_path)
    assert made.state == "done"
    assert "in 2 attempts" in seen.text
    assert "Of 5 rows that this run wrote." in seen.text


def test_one_that_goes_on_from_a_table_shows_its_own_rows(
    tmp_path: Path, texts_model: Path, kill: Kill
) -> None:
    bucket = Bucket(tmp_path, texts_model)
    fill(bucket)
    bucket.run()
    bucket.put("h", b"HHHHHHHH")
    bucket.put("a", b"ANEW")  # its part is written again without it
    bucket.run(supersede=True)
    _, seen = reported(bucket, tmp_path)
    assert "Of 2 rows that this run wrote; the table has 8." in seen.text
    assert {"HHHHHHHH", "ANEW"} <= {text.strip() for text in seen.texts}
    assert "BBBB" not in seen.text


def test_latents_have_their_sizes_and_what_they_are_of(tmp_path: Path, texts_model: Path, kill: Kill) -> None:
    bucket = Bucket(tmp_path, texts_model, task="latents")
    fill(bucket, "abc")
    bucket.run()
    _, seen = reported(bucket, tmp_path)
    assert "Size of latents" in seen.text
    assert "Examples" in seen.text
    assert "CCCCC" in seen.text


def test_an_item_that_is_gone_or_has_changed_is_left_out(
    tmp_path: Path, texts_model: Path, kill: Kill
) -> None:
    bucket = Bucket(tmp_path, texts_model)
    fill(bucket, "abc")
    bucket.run()
    bucket.remove("a")
    os.utime(bucket.folder / "b.txt", (99, 99))
    _, seen = reported(bucket, tmp_path)
    assert "Left out: a.txt (it is gone)" in seen.text
    assert "Left out: b.txt (it has changed since)" in seen.text
    assert "CCCCC" in seen.text


def test_where_its_rows_are_gone_that_is_said(tmp_path: Path, texts_model: Path, kill: Kill) -> None:
    bucket = Bucket(tmp_path, texts_model)
    fill(bucket, "abc", bad="a")
    bucket.run()
    for path in (*Path(bucket.out).glob("data/*"), *Path(bucket.out).glob("quarantine/*")):
        path.unlink()
    _, seen = reported(bucket, tmp_path)
    assert "Some of its rows are gone, so none is measured or shown: " in seen.text
    assert headings(seen) == ["run", "gallery", "quarantine"]
    assert "Rows whose files can't be read any more: 1." in seen.text


def test_where_the_checkpoint_is_gone_no_row_is_shown(tmp_path: Path, kill: Kill) -> None:
    model = save_head(tmp_path / "model", "PerceiverForSequenceClassification")
    bucket = Bucket(tmp_path, model)
    fill(bucket, "abc")
    bucket.run()
    (model / "config.json").rename(model / "gone.json")
    _, seen = reported(bucket, tmp_path)
    assert "What went in can't be read any more, so no row is shown. model.checkpoint: " in seen.text
    assert "Score of the likeliest label" in seen.text
    save_head(model, "PerceiverForSequenceClassification", id2label={0: "other", 1: "labels"})
    _, seen = reported(bucket, tmp_path)
    assert f"{model} has other weights or another config than it had." in seen.text


def test_hostile_names_labels_and_texts(tmp_path: Path, kill: Kill) -> None:
    hostile = '"><img src=x onerror=alert(1)><'
    labels = {0: "</script><script>alert(2)<", 1: hostile, 2: "<b>"}
    model = save_head(tmp_path / "model", "PerceiverForSequenceClassification", id2label=labels)
    bucket = Bucket(tmp_path, model)
    bucket.put(hostile, b"<script>alert(3)</script>")
    bucket.put("<script>bad", BAD)
    bucket.put("\u202egpj", b"turned around")
    bucket.run()
    made, seen = reported(bucket, tmp_path)
    assert "<script>alert(3)</script>" in seen.text
    assert hostile + ".txt" in seen.text
    assert "<script>bad.txt" in seen.text
    assert "\N{REPLACEMENT CHARACTER}gpj.txt" in seen.text
    assert [label in seen.text for label in labels.values()].count(True) >= 1
    assert seen.island["run_id"] == made.summary.run_id


def test_a_run_that_has_left_nothing_yet(tmp_path: Path, texts_model: Path, kill: Kill) -> None:
    bucket = Bucket(tmp_path, texts_model)
    fill(bucket)
    bucket.run()
    run = find(bucket.out, RunStore(tmp_path / "store"))
    os.remove(Path(bucket.out) / f"runs/{run.run_id}/run.json")
    with pytest.raises(
        UnknownRunError, match=r"has left nothing in .* yet: expected runs/\w+/run.json there\."
    ):
        make_report(run, "submitted", "", NoProgress())


@pytest.mark.parametrize("there", [True, False])
def test_the_command(
    tmp_path: Path, texts_model: Path, kill: Kill, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    bucket = Bucket(tmp_path, texts_model)
    fill(bucket, bad="a")
    bucket.run()
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", lambda uri: opened.append(uri) or there)
    done = CliRunner().invoke(main, ["report", bucket.out, "--open"])
    assert done.exit_code == 0, done.output
    [uri] = opened
    assert uri.startswith("file://")
    assert Path(uri.removeprefix("file://")).read_bytes().startswith(b"<!doctype html>")
    assert f"Report: {uri.removeprefix('file://')}" in done.stdout
    assert f"Next: perceive errors {bucket.out}" in done.stdout
    assert ("No browser could be started here" in done.stderr) is not there
    said: dict[str, Any] = json.loads(CliRunner().invoke(main, ["report", bucket.out, "--json"]).stdout)
    assert (said["report"], said["state"]) == (uri.removeprefix("file://"), "done")
    assert said["summary"]["errors"] == {"TextError": 1}
    nothing = CliRunner().invoke(main, ["report", str(tmp_path)])
    assert nothing.exit_code == 2
    assert "There is no run in" in nothing.stderr


def test_of_a_bucket_a_copy_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    class Held:
        def read(self, name: str) -> bytes:
            return f"the page {name}".encode()

    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", lambda uri: opened.append(uri) or True)
    monkeypatch.setattr("pipelines.storage.open_storage", lambda uri: Held())
    made: Any = type("Made", (), {"where": "s3://b/out/runs/1/report.html", "name": "runs/1/report.html"})
    assert _shown(made, "s3://b/out")
    assert Path(opened[0].removeprefix("file://")).read_text() == "the page runs/1/report.html"
