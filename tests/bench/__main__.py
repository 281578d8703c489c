"""`make bench`: each task and dtype, transformers against ours, measured in this process on this machine."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

from tests.bench import flow, images, multimodal, text
from tests.bench.measure import DTYPES, has_dtype, machine, matmul_peak
from tests.bench.run import Comparison, Effort, compare
from tests.bench.table import summary, table
from tests.bench.task import Task, pair

TASKS: dict[str, Task] = {
    task.name: task for task in (*multimodal.TASKS, *flow.TASKS, *images.TASKS, *text.TASKS)
}
DEFAULT = [name for name in TASKS if name not in ("image-learned", "image-conv")]

LEGEND = """\
Seconds a sample: median (minimum to maximum) of the turns, in which all four run alternately. Documented recipe:
transformers as its documentation has it. Careful user: what transformers' own modules allow. perceiver_core: the plain
modules. TFLOP/s: the plain model's products for one sample over its seconds at the best B, so what is folded may pass
the peak. Memory: the model, its constants and the call, at B=1. Difference: the largest from the documented recipe in
float32, as a share of its largest answer.
"""


def main() -> None:
    """Reads the command line, measures and prints."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument(
        "--task", nargs="+", choices=TASKS, default=DEFAULT, metavar="NAME", help=", ".join(TASKS)
    )
    parser.add_argument("--dtype", nargs="+", choices=DTYPES, default=list(DTYPES), metavar="NAME")
    parser.add_argument("--turns", type=int, default=5, help="at most; long calls get fewer, but two")
    parser.add_argument(
        "--quick", action="store_true", help="two turns at B=1, first settings, nothing compiled"
    )
    parser.add_argument(
        "--no-compile", action="store_true", help="the careful user leaves torch.compile alone"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was measured, too")
    asked = parser.parse_args()
    effort = Effort(asked.turns, compile=not asked.no_compile)
    if asked.quick:
        effort = Effort(min(asked.turns, 2), settings=False, compile=False)
    began = time.monotonic()
    dtypes = [name for name in asked.dtype if has_dtype(DTYPES[name])]
    peaks = ", ".join(f"{name} {matmul_peak(DTYPES[name]) / 1e12:.3g} TFLOP/s" for name in dtypes)
    print(f"{machine()}. Measured peak of matrix products: {peaks}.\n\n{LEGEND}", flush=True)
    for name in asked.dtype:
        if name not in dtypes:
            print(f"{name}: not comparable, this machine has no instructions for it.\n")
    done: list[Comparison] = []
    for name in dict.fromkeys(asked.task):
        task = TASKS[name]
        for comparison in compare(task, pair(task.config), [DTYPES[dtype] for dtype in dtypes], effort):
            done.append(comparison)
            print(table(comparison), flush=True)
    print(f"Medians of seconds a sample, in short:\n\n{summary(done)}\n", flush=True)
    if asked.json:
        rows = [asdict(row) for comparison in done for row in comparison.rows]
        peak = {name: matmul_peak(DTYPES[name]) for name in dtypes}
        asked.json.write_text(json.dumps({"machine": machine(), "peak": peak, "rows": rows}, indent=1) + "\n")
    print(f"{time.monotonic() - began:.0f} s in all", file=sys.stderr)


if __name__ == "__main__":
    main()
