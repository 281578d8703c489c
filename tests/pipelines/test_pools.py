"""Sizing the pools."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.pools import PoolError, fit_pools


@given(cpus=st.integers(1, 256), gpus=st.integers(0, 8))
def test_every_machine_gets_pools_that_leave_room_for_writes(cpus: int, gpus: int) -> None:
    gpus = min(gpus, cpus)
    pools = fit_pools(cpus, gpus, None, None)
    held = pools.decode_workers * pools.decode_cpus + pools.predict_workers * pools.predict_cpus
    assert held + pools.write_cpus <= cpus
    assert pools.decode_workers >= 1
    assert pools.predict_workers == (gpus or 1)
    assert pools.predict_gpus == (1 if gpus else 0)


def test_workers_that_cannot_fit_are_refused_before_they_hang() -> None:
    assert fit_pools(16, 0, 7, None).decode_workers == 7
    with pytest.raises(
        PoolError, match=r"decode_workers asks for 8 workers of 1 CPUs, but of 16 CPUs 7\.5 are left"
    ):
        fit_pools(16, 0, 8, None)
    with pytest.raises(PoolError, match=r"predict_workers asks for 2 GPUs, there are 1: set it to at most 1"):
        fit_pools(16, 1, None, 2)
