"""Options that several commands have."""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import click

#: A Job of a CronJob is called after that, and after its time in minutes.
_CRON_JOB = re.compile(r"[a-z][a-z0-9-]*-([0-9]{8})")


def _instant(context: click.Context, parameter: click.Parameter, value: str | None) -> str:
    """The instant that --fire names, in UTC: the same one however it is written, also as a CronJob's Job has it."""
    if value is None:
        return ""
    when: datetime | None
    try:
        when = datetime.fromisoformat(value)
    except ValueError:
        minutes = _CRON_JOB.fullmatch(value)
        when = datetime.fromtimestamp(int(minutes[1]) * 60, UTC) if minutes else None
    if when is None or when.tzinfo is None:
        raise click.BadParameter(
            f"expected an instant with its offset, such as 2026-11-26T03:00Z; got {value!r}."
        )
    return when.astimezone(UTC).isoformat(timespec="seconds")


FIRE = click.option(
    "--fire", metavar="TIME", callback=_instant,
    help="As the run of a schedule's fire, such as 2026-11-26T03:00Z: one, however often it is tried.",
)  # fmt: skip

_TARGET = [
    click.option(
        "--target", type=click.Choice(["local", "ray", "kuberay"]), default="local", show_default=True,
        help="local: a process of this machine that outlives this one; ray: a Ray cluster, by its job API; kuberay: "
        "Kubernetes, by the KubeRay operator, as the job's section kubernetes has it.",
    ),
    click.option(
        "--address", metavar="URL",
        help="Of the cluster's head: http://head:8265; by default RAY_API_SERVER_ADDRESS. Implies --target ray.",
    ),
    click.option(
        "--namespace", metavar="NAME",
        help="In Kubernetes; by default kubernetes.namespace, else the context's. Implies --target kuberay.",
    ),
    click.option(
        "--context", metavar="NAME", help="Of the kubeconfig; by default its current one. Implies --target kuberay."
    ),
]  # fmt: skip


def overrides(example: str) -> Callable[[Any], Any]:
    """-o, with an example of its own."""
    return click.option(
        "-o", "overrides", multiple=True, metavar="KEY=VALUE", help=f"Override a field: -o {example}"
    )


def target(command: Any) -> Any:
    """--target, --address, --namespace and --context, for `name_of`."""
    for option in reversed(_TARGET):
        command = option(command)
    return command


def name_of(target: str, address: str | None, namespace: str | None, context: str | None) -> str:
    """The target that the options name."""
    if address and (namespace or context):
        raise click.UsageError(
            "Give --address, of a Ray cluster, or --namespace and --context, of Kubernetes."
        )
    if address or target == "ray":
        return f"ray {address or ''}".strip()
    if namespace or context or target == "kuberay":
        return f"kuberay {namespace or ''}{f'@{context}' if context else ''}".strip()
    return target
