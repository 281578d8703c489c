"""A storage of each kind, and the stores behind them."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipelines.storage import Storage, open_storage
from pipelines.storage.objects import ObjectStorage
from tests.faults.proxy import Proxy
from tests.faults.store import Store
from tests.pipelines.storage.backends import KINDS, STORES, fresh


@pytest.fixture(scope="package")
def stores() -> Iterator[dict[str, Store]]:
    """All stores, with the environment that leads to them, and clients that wait for nothing before they try again."""
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        running = {scheme: stack.enter_context(store()) for scheme, store in STORES.items()}
        for store in running.values():
            for name, value in store.environment.items():
                patch.setenv(name, value)
        patch.setenv("AWS_MAX_ATTEMPTS", "1")
        patch.setattr(KINDS[0], "retries", 2)
        patch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "7")
        patch.setattr("azure.storage.blob.aio.ExponentialRetry.get_backoff_time", lambda *_: 0.01)
        patch.setattr("gcsfs.retry.asyncio", SimpleNamespace(sleep=_no_sleep))
        for kind in KINDS:
            kind.clear_instance_cache()
        yield running
        for kind in KINDS:
            kind.clear_instance_cache()


async def _no_sleep(_: float) -> None:
    return


@pytest.fixture
def proxy(request: pytest.FixtureRequest) -> Proxy:
    """The way to the store that the test is about."""
    scheme = request.node.callspec.params.get("remote") or request.node.callspec.params["storage"]
    found: Proxy = request.getfixturevalue("stores")[scheme].proxy
    return found


@pytest.fixture(params=["local", *STORES])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param != "local":
        found: Storage = fresh(request.getfixturevalue("stores"), request.param)
    else:
        found = open_storage(str(tmp_path / "out pût"))
    found.prepare()
    return found


@pytest.fixture(params=[*STORES])
def remote(request: pytest.FixtureRequest, stores: dict[str, Store]) -> ObjectStorage:
    storage = fresh(stores, request.param)
    storage.prepare()
    return storage
