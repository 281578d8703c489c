"""Metrics as Prometheus would have them: scraped from a node's port while a run goes on and after it, and parsed."""

import json
import os
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.request import ProxyHandler, build_opener

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from jobs.metrics import COMMON, METRICS
from tests.cluster.head import Head
from tests.e2e.command import PERCEIVE, kill_tree
from tests.pipelines.staging import save_head

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

TEXTS = 60
_EVERY_SECOND = {"RAY_metrics_report_interval_ms": "1000"}  # Ray's default is ten
Samples = list[tuple[str, Mapping[str, str], float]]


def scraped(address: str) -> Samples:
    """Our samples there; none where nobody answers yet, or any more."""
    try:
        with build_opener(ProxyHandler({})).open(f"http://{address}/metrics", timeout=30) as answer:
            text = answer.read().decode()
    except OSError:
        return []
    kinds = {f"ray_{metric.name}": metric.kind for metric in METRICS}
    found: Samples = []
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name.startswith("ray_perceiver"):
                assert family.type == kinds[sample.name], sample
                found.append((sample.name.removeprefix("ray_perceiver_"), sample.labels, sample.value))
    return found


def by(samples: Samples, name: str, label: str) -> Counter[str]:
    found: Counter[str] = Counter()
    for called, labels, value in samples:
        if called == name:
            found[labels[label]] += value  # type: ignore[assignment]
    return found


class Run:
    """A run over texts, three of which are none, in a process of its own that tells Ray every second."""

    def __init__(self, folder: Path, *options: str, **environment: str) -> None:
        media, self.out, self.state = folder / "in", folder / "out", folder / "state"
        media.mkdir()
        for n in range(TEXTS):
            (media / f"{n:03}.txt").write_bytes(b"\xff\xfe" if n % 20 == 2 else b"text %03d" % n)
        job = {
            "name": "counted",
            "task": "text-classification",
            "model": {"checkpoint": str(save_head(folder / "model", "PerceiverForSequenceClassification"))},
            "input": {"uri": str(media)},
            "output": {"uri": str(self.out)},
            "options": {"top_k": 2, "overlap": 4},
            "compute": {"batch": 1, "shard_windows": 1, "decode_workers": 1},
        }
        (folder / "job.yaml").write_text(yaml.safe_dump(job))
        self.process = subprocess.Popen(
            [PERCEIVE, "run", str(folder / "job.yaml"), *options],
            env=os.environ | {"PERCEIVER_STATE": str(self.state)} | _EVERY_SECOND | environment,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip

    def until(self, seen: Callable[[], Any]) -> Any:
        """What is seen while the run goes on."""
        deadline = time.monotonic() + 150
        while not (found := seen()):
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.2)
        return found

    def ends(self) -> dict[str, Any]:
        """Its summary, once it has ended."""
        said = self.process.communicate(timeout=150)
        assert self.process.returncode == 3, said
        assert "metrics" not in said[1]
        [path] = self.out.glob("runs/*/summary.json")
        summary: dict[str, Any] = json.loads(path.read_text())
        return summary


@pytest.fixture
def runs() -> Iterator[list[Run]]:
    begun: list[Run] = []
    yield begun
    for run in begun:
        if run.process.poll() is None:
            kill_tree(run.process)


@pytest.fixture
def own_head() -> Iterator[Head]:
    """One whose counters are at nothing."""
    head = Head()
    head.start()
    yield head
    head.kill()


def of_cluster(head: Head) -> Samples:
    """What Prometheus finds by the file that Ray writes for it, and keeps up to date."""
    file = Path(head.folder, "prom_metrics_service_discovery.json")
    [group] = json.loads(file.read_text()) if file.exists() else [{"targets": []}]
    assert all(target.startswith("127.0.0.1:") for target in group["targets"])
    return [one for target in group["targets"] for one in scraped(target)]


def test_a_cluster_has_a_runs_own_account(own_head: Head, tmp_path: Path, runs: list[Run]) -> None:
    run = Run(tmp_path, "--ray-address", f"127.0.0.1:{own_head.control_store}", **own_head.environment)
    runs.append(run)
    seen = run.until(lambda: [one for one in of_cluster(own_head) if one[0] == "workers"])
    assert {labels["stage"] for _, labels, _ in seen} == {"decode", "predict", "write"}
    assert not (run.state / "metrics").exists()  # of a cluster Ray itself tells Prometheus
    summary = run.ends()
    samples = [one for one in of_cluster(own_head) if one[0].endswith("_total")]
    common = dict(zip(COMMON, (summary["run_id"], "counted", "text-classification"), strict=True))
    assert all(common.items() <= labels.items() for _, labels, _ in samples)
    totals = {name: by(samples, name, "run_id").total() for name, _, _ in samples}
    assert (summary["rows"], summary["quarantined"], summary["shards_done"]) == (TEXTS - 3, 3, TEXTS)
    assert totals == {
        "windows_total": 3 * TEXTS,
        "busy_seconds_total": pytest.approx(sum(one["busy_s"] for one in summary["stages"].values()), abs=0.01),
        "decoded_bytes_total": summary["decoded_bytes"],
        "written_bytes_total": summary["rows_bytes"],
        "written_rows_total": summary["rows"],
        "shards_committed_total": summary["shards_done"],
        "quarantined_rows_total": summary["quarantined"],
    }  # fmt: skip
    done = {stage: one["windows"] for stage, one in summary["stages"].items()}
    assert by(samples, "windows_total", "stage") == done
    assert by(samples, "quarantined_rows_total", "error") == summary["errors"] == {"TextError": 3}


def test_a_local_run_is_found_while_it_goes_on(tmp_path: Path, runs: list[Run]) -> None:
    run = Run(tmp_path)
    runs.append(run)
    [path] = run.until(lambda: list(run.state.glob("metrics/*.json")))
    [target] = json.loads(path.read_text())
    [address] = target["targets"]
    assert address.startswith("127.0.0.1:")
    seen = run.until(lambda: by(scraped(address), "shards_committed_total", "run_id"))
    assert 0 < seen[path.stem] <= TEXTS
    summary = run.ends()
    assert summary["run_id"] == path.stem
    assert not path.exists()
