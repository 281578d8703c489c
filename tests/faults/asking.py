"""All that a Ray answers to who may ask it: its tables, its events, and every value of its key-value store.

RAY_AUTH_TOKEN=... python -m tests.faults.asking HOST:PORT
"""

import sys
from typing import Any

from ray._private import ray_constants
from ray._private.state import GlobalState
from ray._raylet import GcsClient, GcsClientOptions  # type: ignore[attr-defined]  # of Cython

_SPACES = {getattr(ray_constants, name) for name in dir(ray_constants) if name.startswith("KV_NAMESPACE_")}
_TABLES = (
    "node_table", "job_table", "workers", "placement_group_table", "cluster_resources",
    "get_system_config", "profile_events",
)  # fmt: skip


def answers(address: str) -> dict[str, Any]:
    """Whatever the control store at an address answers, by what it is asked."""
    state = GlobalState()
    state._initialize_global_state(GcsClientOptions.create(address, None, True, True))
    found: dict[str, Any] = {name: getattr(state, name)() for name in _TABLES}
    found["actor_table"] = state.actor_table(None)
    accessor = state._connect_and_get_accessor()
    found["tasks"] = list(accessor.get_task_events())
    found["jobs"] = list(accessor.get_job_table(skip_submission_job_info_field=False))
    state.disconnect()
    client = GcsClient(address=address)
    for space in _SPACES:
        for key in client.internal_kv_keys(b"", space):
            found[f"{space!r} {key!r}"] = client.internal_kv_get(key, space)
    return found


def _flat(value: Any) -> bytes:
    """As bytes in which a text is found as it is, in whatever it is."""
    if isinstance(value, bytes):
        return value
    return b"\n".join(map(_flat, value)) if isinstance(value, list) else repr(value).encode()


if __name__ == "__main__":
    for name, value in answers(sys.argv[1]).items():
        sys.stdout.buffer.write(name.encode() + b"\t" + _flat(value) + b"\n")
