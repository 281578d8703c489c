"""All that a Ray answers to who may ask it: its tables, its events, and every value of its key-value store.

    RAY_AUTH_TOKEN=... python -m tests.faults.asking HOST:PORT
"""

import sys
from typing import Any

from ray._private import ray_constants
from ray._private.state import GlobalState
from ray._raylet import GcsClient, GcsClientOptions

_SPACES = {getattr(ray_constants, name) for name in dir(ray_constants) if name.startswith("KV_NAMESPACE_")}


def answers(address: str) -> dict[str, Any]:
    """Whatever there is to be asked of the control store at an address, by what it is called."""
    state = GlobalState()
    state._initialize_global_state(GcsClientOptions.create(address, None, True, True))
    found: dict[str, Any] = {
        name: getattr(state, name)()
        for name in (
            "node_table", "job_table", "actor_table", "workers", "placement_group_table", "cluster_resources",
            "get_system_config", "profile_events",
        )
    }  # fmt: skip
    accessor = state._connect_and_get_accessor()
    found["task_events"] = [str(event) for event in state._get_all_task_events()]
    found["jobs"] = [bytes(job) for job in accessor.get_job_table(skip_submission_job_info_field=False)]
    state.disconnect()
    client = GcsClient(address=address)
    for space in _SPACES:
        for key in client.internal_kv_keys(b"", space):
            found[f"{space!r} {key!r}"] = client.internal_kv_get(key, space)
    return found


if __name__ == "__main__":
    for name, value in answers(sys.argv[1]).items():
        sys.stdout.buffer.write(name.encode() + b"\t" + (value if isinstance(value, bytes) else repr(value).encode()) + b"\n")
