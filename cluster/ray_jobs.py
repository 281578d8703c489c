"""Any Ray cluster, by the address of its job API. A submission's id is the Ray job's; Ray keeps it once."""

import asyncio
import logging
import shlex
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from cluster.errors import ClusterError, ConnectionLostError
from cluster.local import Node, node_of
from cluster.target import DONE, ENDED, Sent, State, Submission

_T = TypeVar("_T")
_AGAIN_S = 1.0  # between looks, and after a lost connection
_PATIENCE_S = 60.0  # with a head that doesn't answer, while a log is followed
_STATES: dict[str, State] = {
    "PENDING": "pending",
    "RUNNING": "running",
    "SUCCEEDED": "succeeded",
    "FAILED": "failed",
    "STOPPED": "stopped",
}
_MISSING = "Ray's job API needs more of Ray than is installed: pip install 'perceiver-batch[ray]'."
#: Of our packages, what is no code and no data of theirs.
_EXCLUDED = ["**/__pycache__/**", "**/*.pyc"]


@dataclass(frozen=True)
class RayTarget:
    """A Ray cluster. Its token is taken from where Ray's own tools take it: RAY_AUTH_TOKEN, or ~/.ray/auth_token."""

    address: str  #: http://head:8265

    @property
    def name(self) -> str:
        return f"ray {self.address}"

    def nodes(self) -> tuple[Node, ...]:
        answer = self._got("/api/v0/nodes?detail=1&limit=10000")
        if answer.status_code != 200:
            raise ClusterError(f"{self.address} does not say what nodes it has: {answer.text[:500]}")
        rows = answer.json()["data"]["result"]["result"]
        alive = [row for row in rows if row["state"] == "ALIVE"]
        return tuple(node_of(row["resources_total"], row.get("labels")) for row in alive)

    def ray_version(self) -> str:
        """The Ray that the cluster runs."""
        answer = self._got("/api/version")
        version: str = answer.json()["ray_version"]
        return version

    def submit(self, submission: Submission) -> bool:
        if self.look(submission.id) is not None:
            return False
        environment: dict[str, Any] = {
            "working_dir": str(submission.folder),
            "excludes": _EXCLUDED,
            "env_vars": dict(submission.environment),
        }
        if submission.packages:
            environment["py_modules"] = [str(package) for package in submission.packages]
        try:
            self._asked(
                lambda client: client.submit_job(
                    entrypoint=shlex.join(submission.command),
                    submission_id=submission.id,
                    runtime_env=environment,
                    metadata=dict(submission.labels),
                )
            )
        except ClusterError:
            # Of an id that is there, Ray says HTTP 500 (2.60), as of any trouble; and an answer may be lost.
            if self.look(submission.id) is None:
                raise
            return False
        return True

    def look(self, id: str) -> Sent | None:
        answer = self._got(f"/api/jobs/{id}")
        if answer.status_code == 404:
            return None
        if answer.status_code != 200:
            raise ClusterError(f"{self.address} does not say what became of {id}: {answer.text[:500]}")
        about = answer.json()
        state, code = _STATES[about["status"]], about.get("driver_exit_code")
        if state == "failed" and code in DONE:  # to Ray whatever isn't 0 is a failure
            state = "succeeded"
        message = "" if state in ("running", "succeeded") else (about.get("message") or "").strip()
        return Sent(id, state, message, code)

    def logs(self, id: str, follow: bool = False) -> Iterator[str]:
        if not follow:
            yield self._asked(lambda client: client.get_job_logs(id))
            return
        told, lost = 0, None
        while True:
            try:
                sent = self.look(id)  # before the read: what it wrote until then is read
                if sent is None:
                    raise ClusterError(f"{self.address} knows no job {id}.")
                # A job that has not begun has no log to follow, one that has ended is read at once.
                if sent.state == "running":
                    for text in self._tailed(id, told):
                        told += len(text)
                        yield text
                elif sent.state in ENDED:
                    rest = self._asked(lambda client: client.get_job_logs(id))[told:]
                    if rest:
                        yield rest
                    return
                lost = None
            except ConnectionLostError:
                lost = lost or time.monotonic()
                if time.monotonic() - lost > _PATIENCE_S:
                    raise
            time.sleep(_AGAIN_S)

    def stop(self, id: str) -> None:
        sent = self.look(id)
        if sent is not None and sent.state not in ENDED:
            self._asked(lambda client: client.stop_job(id))

    def _tailed(self, id: str, told: int) -> Iterator[str]:
        """The log from a place on, as it is written, until Ray closes it."""
        loop = asyncio.new_event_loop()
        lines: AsyncGenerator[str, None] | None = None
        try:
            lines = self._asked(lambda client: client.tail_job_logs(id))
            while True:
                try:
                    text = loop.run_until_complete(anext(lines))
                except StopAsyncIteration:
                    return
                except Exception as error:  # of aiohttp's, or a RuntimeError where the connection broke
                    raise ConnectionLostError(f"The log of {id} broke off: {error}") from error
                new, told = text[told:], max(0, told - len(text))
                if new:
                    yield new
        finally:
            if lines is not None:
                loop.run_until_complete(lines.aclose())
            loop.close()

    def _got(self, path: str) -> Any:
        """What is at a path of its API, whatever the answer's status."""
        return self._asked(lambda client: client._do_request("GET", path))

    def _asked(self, ask: Callable[[Any], _T]) -> _T:
        """What the cluster answers, its errors as ours."""
        logging.getLogger("ray.dashboard").setLevel(logging.ERROR)  # it tells of every upload
        try:
            from ray.job_submission import JobSubmissionClient
        except ImportError as error:
            raise ClusterError(_MISSING) from error
        from ray.exceptions import AuthenticationError

        try:
            return ask(JobSubmissionClient(self.address))
        except AuthenticationError as error:
            raise ClusterError(
                f"{self.address} asks for its token, or another one. Set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN, or "
                "keep it in ~/.ray/auth_token; `ray get-auth-token` on the head shows it."
            ) from error
        except OSError as error:  # requests' own are OSErrors, too
            raise ConnectionLostError(
                f"{self.address} does not answer ({type(error).__name__}). It should be the address of the head's "
                "dashboard, such as http://head:8265: check that it runs there and can be reached from here."
            ) from error
        except RuntimeError as error:
            if "ray[default]" in str(error):
                raise ClusterError(_MISSING) from error
            raise ClusterError(f"{self.address}: {error}") from error
