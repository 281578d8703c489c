"""perceive doctor [FILE]: is all here that a run needs?"""

import dataclasses
import json
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

from jobs.cli import options
from jobs.exit_codes import DONE, FAILED


@click.command()
@click.argument("file", required=False)
@options.overrides("output.uri=s3://bucket/out")
@click.option("--store", metavar="URI", help="Look at this folder or bucket alone, as an output.")
@click.option(
    "--address", metavar="URL", help="Look at the Ray cluster whose head is there alone: http://head:8265"
)
@click.option(
    "--target",
    type=click.Choice(["kuberay"]),
    help="Look at Kubernetes alone: its API, KubeRay, and one's rights.",
)
@click.option("--namespace", metavar="NAME", help="In Kubernetes; by default the context's.")
@click.option("--context", metavar="NAME", help="Of the kubeconfig; by default its current one.")
@click.option("--json", "as_json", is_flag=True, help="Print the checks as one JSON object.")
def doctor(
    file: str | None,
    overrides: tuple[str, ...],
    store: str | None,
    address: str | None,
    target: str | None,
    namespace: str | None,
    context: str | None,
    as_json: bool,
) -> None:
    """Look whether all is here that a run needs; with FILE, a job, also at its checkpoint, input and output.

    Nothing of it stays behind. Exit codes: 0 well, also with warnings, 2 bad job, 5 something failed.
    """
    kuberay = f"{namespace or ''}@{context or ''}" if target or namespace or context else None
    if file is not None and (store is not None or address or kuberay):
        raise click.UsageError(
            "Give FILE, or --store, --address and --target: with a job its output is looked at, and a store or a "
            "cluster alone."
        )
    from jobs.cli.run import ending

    began = time.monotonic()
    checks = []
    again = ["perceive", "doctor", *([file] if file else []), *(x for o in overrides for x in ("-o", o))]
    again += [*(["--store", store] if store else []), *(["--address", address] if address else [])]
    again += [
        *(["--target", "kuberay"] if kuberay else []),
        *(["--namespace", namespace] if namespace else []),
    ]
    again += ["--context", context] if context else []
    with ending(shlex.join(again), as_json):
        from jobs.doctor import diagnose
        from jobs.spec import load_job
        from pipelines.secrets import check_no_secrets

        check_no_secrets(store or "")
        job = load_job(file, overrides) if file is not None else None
        with _told() as tell:
            for check in diagnose(job, store, address, kuberay, tell):
                checks.append(check)
                if not as_json:
                    tell("")
                    click.echo(f"{check.state:8} {check.name}: {check.found}")
                    if check.advice:
                        click.echo(f"         -> {check.advice}")
    states = [check.state for check in checks]
    code = FAILED if "failed" in states else DONE
    seconds = round(time.monotonic() - began, 1)
    if as_json:
        listed = [dataclasses.asdict(check) for check in checks]
        click.echo(json.dumps({"checks": listed, "seconds": seconds, "exit_code": code}))
    else:
        counted = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(sorted(states)))
        click.echo(f"{len(checks)} checks in {seconds:.1f} s: {counted}.")
    sys.exit(code)


@contextmanager
def _told() -> Iterator[Callable[[str], None]]:
    """What is being looked at: on a terminal a line that turns and goes away, elsewhere one that stays, on stderr."""
    if not sys.stderr.isatty():
        yield lambda name: click.echo(f"looking at: {name}", err=True) if name else None
        return
    from rich.console import Console

    with Console(stderr=True).status("") as status:
        yield lambda name: status.update(f"looking at: {name}" if name else "")
