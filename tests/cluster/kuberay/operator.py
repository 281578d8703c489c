"""KubeRay's operator as far as a client sees it, over tests.cluster.kuberay.server: commands run on this machine.

It goes through the states as rayjob_controller.go does (KubeRay 1.7), and stops a command as Ray does.
"""

import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import uuid
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from cluster.kuberay.render import FOLDER
from tests.cluster.kuberay.objects import Log, Refusal
from tests.cluster.kuberay.server import Server

_FINALIZER = "ray.io/rayjob-finalizer"
_STOP_WAIT_S = 3.0  # Ray's own
_SUBMITTER = "ray-job-submitter"


@dataclass
class _Work:
    """What there is of a RayJob on this machine."""

    process: "subprocess.Popen[bytes]"
    log: Log
    reader: threading.Thread
    said: list[str] = field(default_factory=list)


@dataclass
class Operator:
    """The operator; `with` runs it. Its steps are short, and a test may wait between them."""

    server: Server
    holds: set[str] = field(default_factory=set)  #: statuses in which RayJobs are left as they are
    work: dict[str, _Work] = field(default_factory=dict)  #: by the RayCluster's name
    folders: list[str] = field(default_factory=list)

    def __enter__(self) -> "Operator":
        self.ended = threading.Event()
        self.server.proxied = self._dashboard
        self.thread = threading.Thread(target=self._go, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.thread.join()
        for one in self.work.values():
            _stop(one, 0.0)
        for folder in self.folders:
            shutil.rmtree(folder)

    def take_down(self, name: str) -> None:
        """What a TTL does once a RayJob has ended: its cluster goes, it stays."""
        cluster = self.server.get("rayjobs", name)["status"]["rayClusterName"]
        self.server.delete("rayclusters", cluster)

    def _go(self) -> None:
        while not self.ended.wait(0.05):
            for rayjob in self.server.list("rayjobs"):
                with suppress(Refusal):  # it was changed or deleted meanwhile: the next time
                    self._step(rayjob)

    def _step(self, rayjob: dict[str, Any]) -> None:
        name, status = rayjob["metadata"]["name"], rayjob.get("status") or {}
        deployment, cluster = status.get("jobDeploymentStatus") or "", status.get("rayClusterName") or ""
        if rayjob["metadata"].get("deletionTimestamp"):
            self._stopped(cluster)
            self.server.change("rayjobs", name, metadata={"finalizers": None})
            return
        if deployment in self.holds or (deployment == "" and rayjob["spec"].get("suspend")):
            return
        match deployment:
            case "":
                self.server.change("rayjobs", name, metadata={"finalizers": [_FINALIZER]})
                self._say(
                    name, jobDeploymentStatus="Initializing", jobStatus="",
                    jobId=rayjob["spec"].get("jobId"), rayClusterName=f"{name}-{uuid.uuid4().hex[:5]}",
                )  # fmt: skip
            case "Initializing":
                if not any(one["metadata"]["name"] == cluster for one in self.server.list("rayclusters")):
                    self._make_cluster(rayjob, cluster)
                elif any(one["metadata"]["name"] == name for one in self.server.list("configmaps")):
                    self._start(rayjob, cluster)
                    self._say(
                        name, jobDeploymentStatus="Running", jobStatus="RUNNING", message="Job is currently running.",
                        rayClusterStatus={"head": {"serviceName": f"{cluster}-head-svc"}},
                    )  # fmt: skip
            case "Running" if cluster in self.work:
                if rayjob["spec"].get("suspend"):
                    self._stopped(cluster)
                    self._clean(name, cluster, "Suspended")
                elif (code := self.work[cluster].process.poll()) is not None:
                    self._ended(rayjob, cluster, code)
            case "Retrying":
                self._clean(name, cluster, "")

    def _make_cluster(self, rayjob: dict[str, Any], cluster: str) -> None:
        spec, namespace = rayjob["spec"]["rayClusterSpec"], rayjob["metadata"]["namespace"]

        def owned(plural: str, kind: str, name: str, owner: dict[str, Any], **more: Any) -> dict[str, Any]:
            about = {
                "name": name,
                "ownerReferences": [
                    {
                        "apiVersion": owner["apiVersion"], "kind": owner["kind"],
                        "name": owner["metadata"]["name"], "uid": owner["metadata"]["uid"],
                    }
                ],
            }  # fmt: skip
            version = owner["apiVersion"] if kind == "RayCluster" else "v1"
            labels = more.pop("labels", {})
            document = {"apiVersion": version, "kind": kind, "metadata": about | {"labels": labels}, **more}
            return self.server.create(plural, namespace, document)

        made = owned("rayclusters", "RayCluster", cluster, rayjob, spec=spec)
        labels = {"ray.io/cluster": cluster, "ray.io/node-type": "head"}
        containers = spec["headGroupSpec"]["template"]["spec"]["containers"]
        owned("pods", "Pod", f"{cluster}-head", made, spec={"containers": containers}, labels=labels)
        owned("services", "Service", f"{cluster}-head-svc", made, spec={})
        if (spec.get("authOptions") or {}).get("mode") == "token":
            token = base64.b64encode(f"token-of-{cluster}".encode()).decode()
            owned("secrets", "Secret", cluster, made, data={"auth_token": token})

    def _start(self, rayjob: dict[str, Any], cluster: str) -> None:
        folder = tempfile.mkdtemp(prefix="rayjob")
        self.folders.append(folder)
        files = self.server.get("configmaps", rayjob["metadata"]["name"]).get("data") or {}
        for name, text in files.items():
            Path(folder, name).write_text(text)
        head = rayjob["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0]
        given = {one["name"]: one["value"] for one in head.get("env", []) if "value" in one}
        paths = {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": os.pathsep.join(filter(None, (os.getcwd(), os.environ.get("PYTHONPATH")))),
        }
        process = subprocess.Popen(
            rayjob["spec"]["entrypoint"].replace(FOLDER, folder),
            shell=True,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=os.environ | given | paths | {"PYTHONUNBUFFERED": "1"},
        )
        log = Log()
        work = _Work(process, log, threading.Thread(target=self._read, args=(cluster,), daemon=True))
        self.work[cluster] = work
        if rayjob["spec"].get("submissionMode") == "SidecarMode":
            self.server.logs[f"{cluster}-head", _SUBMITTER] = log
            log.write(f"Job '{rayjob['spec'].get('jobId')}' submitted successfully")
        work.reader.start()

    def _read(self, cluster: str) -> None:
        work = self.work[cluster]
        assert work.process.stdout
        with work.process.stdout as said:
            for line in said:
                text = line.decode(errors="replace").rstrip("\n")
                work.said.append(text)
                work.log.write(text)

    def _ended(self, rayjob: dict[str, Any], cluster: str, code: int) -> None:
        work, name = self.work[cluster], rayjob["metadata"]["name"]
        work.reader.join(5)
        work.log.end()
        if code == 0:
            self._say(
                name,
                jobDeploymentStatus="Complete",
                jobStatus="SUCCEEDED",
                message="Job finished successfully.",
            )
            return
        end = "\n".join(work.said)[-20000:]
        told = f"last available logs (truncated to 20,000 chars):\n{end}"
        message = f"Job entrypoint command failed with exit code {code}{f', {told}' if end else '. No logs available.'}"
        failed = int(rayjob["status"].get("failed") or 0) + 1
        again = failed <= int(rayjob["spec"].get("backoffLimit") or 0)
        self._say(
            name, jobDeploymentStatus="Retrying" if again else "Failed", jobStatus="FAILED", reason="AppFailed",
            message=message, failed=failed,
        )  # fmt: skip

    def _clean(self, name: str, cluster: str, deployment: str) -> None:
        with suppress(Refusal):
            self.server.delete("rayclusters", cluster)
        self.server.logs.pop((f"{cluster}-head", _SUBMITTER), None)
        self._say(
            name, jobDeploymentStatus=deployment, jobStatus="", message="", reason="", rayClusterName="", jobId="",
            rayClusterStatus=None,
        )  # fmt: skip

    def _stopped(self, cluster: str) -> None:
        work = self.work.pop(cluster, None)
        if work:
            _stop(work, _STOP_WAIT_S)
            work.reader.join(5)
            work.log.end()

    def _say(self, name: str, **status: Any) -> None:
        self.server.change("rayjobs", name, part="status", status=status)

    def _dashboard(self, service: str, path: str, headers: Any) -> tuple[int, bytes]:
        """Ray's job API of a head, behind its service."""
        cluster = service.partition(":")[0].removesuffix("-head-svc")
        work = self.work.get(cluster)
        if work is None or not any(
            one["metadata"]["name"] == cluster for one in self.server.list("rayclusters")
        ):
            return 503, b"no endpoints available for service"
        if headers.get("X-Ray-Authorization") != f"Bearer token-of-{cluster}":
            return 401, b"Unauthorized: Missing authentication token"
        if not path.endswith("/logs"):
            return 404, b"Not found"
        return 200, json.dumps({"logs": "".join(f"{line}\n" for line in work.said)}).encode()


def _stop(work: _Work, seconds: float) -> None:
    """SIGTERM to all of it, and SIGKILL to what is left."""
    try:
        first = psutil.Process(work.process.pid)
        tree = [first, *first.children(recursive=True)]
    except psutil.NoSuchProcess:
        tree = []
    for one in tree:
        with suppress(psutil.NoSuchProcess):
            one.terminate()
    _, alive = psutil.wait_procs([one for one in tree if one.pid != work.process.pid], seconds)
    for one in alive:
        with suppress(psutil.NoSuchProcess):
            one.kill()
    if tree and work.process.poll() is None:
        with suppress(subprocess.TimeoutExpired):
            work.process.wait(seconds or 0.5)
        work.process.kill()
    work.process.wait()
