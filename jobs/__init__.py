"""What runs: job files, runs and their states, the command line. `from jobs import Job, plan, run, submit`."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jobs.attempt import RunResult as RunResult
    from jobs.comparing.comparison import Comparison as Comparison
    from jobs.estimate import Plan as Plan
    from jobs.library import compare as compare
    from jobs.library import plan as plan
    from jobs.library import resume as resume
    from jobs.library import run as run
    from jobs.library import status as status
    from jobs.library import stop as stop
    from jobs.library import submit as submit
    from jobs.spec import Job as Job
    from jobs.store import Run as Run

#: Looked up when it is asked for: the command line is below this package, and its help loads nothing of it.
_HOMES = {
    "Comparison": "jobs.comparing.comparison",
    "Job": "jobs.spec",
    "Plan": "jobs.estimate",
    "Run": "jobs.store",
    "RunResult": "jobs.attempt",
    **dict.fromkeys(("compare", "plan", "resume", "run", "status", "stop", "submit"), "jobs.library"),
}
__all__ = [
    "Comparison", "Job", "Plan", "Run", "RunResult", "compare", "plan", "resume", "run", "status", "stop", "submit",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module jobs has no attribute {name}")
