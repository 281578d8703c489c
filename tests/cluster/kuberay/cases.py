"""What a case of the operator's rules is, and what cases of jobs and of clusters both change."""

from dataclasses import dataclass, field
from typing import Any

from tests.cluster.kuberay.test_crds import GOOD, changed

Changes = dict[str, Any]
OWN = "spec.rayClusterSpec"
HEAD = f"{OWN}.headGroupSpec"
SCALING: Changes = {f"{OWN}.enableInTreeAutoscaling": True}
TOKEN: Changes = {f"{OWN}.authOptions": {"mode": "token"}}


@dataclass(frozen=True)
class Case:
    """A manifest that is refused for a reason, and what makes it good: changes at places, None for taken away."""

    name: str
    wrong: Changes
    right: Changes
    reason: str
    kind: str = "RayJob"
    both: Changes = field(default_factory=dict)


def made(case: Case, changes: Changes) -> dict[str, Any]:
    manifest = GOOD[case.kind]()
    for place, value in {**case.both, **changes}.items():
        manifest = changed(manifest, place, value)
    return manifest
