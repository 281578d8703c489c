"""perceive cluster: a job as Kubernetes' objects, and what the operator would say of such."""

import json
import shlex
import sys
from collections.abc import Iterator
from typing import Any

import click

from jobs.cli import options
from jobs.cli.run import ending, stop
from jobs.exit_codes import BAD_SPEC


@click.group()
def cluster() -> None:
    """Kubernetes, without asking it: what a job is there, and whether KubeRay's operator would take it."""


@cluster.command()
@click.argument("file")
@options.overrides("kubernetes.backoff_limit=0")
@click.option("--supersede", is_flag=True, help="As of perceive submit.")
@click.option("--env", "variables", multiple=True, metavar="NAME", help="As of perceive submit.")
@click.option(
    "--name",
    metavar="NAME",
    help="Look at neither checkpoint, input nor output, as where they can't be reached from: the RayJob is called "
    "perceive-NAME instead of after its run, so every change needs a new one.",
)
@click.option("--output", metavar="FILE", help="Write there; by default the manifests are printed.")
@click.option(
    "--json", "as_json", is_flag=True, help="Print them as one JSON object, a List that kubectl takes."
)
def render(
    file: str,
    overrides: tuple[str, ...],
    supersede: bool,
    variables: tuple[str, ...],
    name: str | None,
    output: str | None,
    as_json: bool,
) -> None:
    """Print the job in FILE as a ConfigMap and a RayJob of KubeRay, as perceive submit --target kuberay makes them.

    Nothing is sent. What is printed goes to kubectl apply -f -, or into a repository that others apply. Exit codes: 0
    rendered, 2 bad job, or the operator would refuse it.
    """
    with ending(None, as_json):
        from jobs.cli.progress import terminal_progress
        from jobs.rendering import render
        from jobs.spec import SpecError, load_job

        job = load_job(file, overrides)
        with terminal_progress() as progress:
            manifests = render(job, progress, supersede, variables, name)
        text = _as_json(manifests) if as_json else _as_yaml(manifests)
        if output is not None:
            try:
                with open(output, "w", encoding="utf-8") as written:
                    written.write(text)
            except OSError as error:
                raise SpecError(
                    f"{output} can't be written: {error.strerror}. Name a file in a folder that is there."
                ) from error
    if output is None:
        click.echo(text, nl=False)
    elif as_json:
        click.echo(json.dumps({"file": output, "names": [one["metadata"]["name"] for one in manifests]}))
    else:
        click.echo(f"Wrote {output}: {', '.join(_named(one) for one in manifests)}.")
        click.echo(f"Next: {shlex.join(['kubectl', 'apply', '-f', output])}")


@cluster.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("--json", "as_json", is_flag=True, help="Print what was found as one JSON object.")
def check(files: tuple[str, ...], as_json: bool) -> None:
    """Say what KubeRay's operator (1.7) would refuse in FILEs of manifests, though the API server takes it.

    RayJobs, RayCronJobs and RayClusters are looked at, whoever wrote them; - is the standard input. The server itself
    says what is wrong with their fields: kubectl apply --dry-run=server. Exit codes: 0 nothing, 2 something.
    """
    with ending(None, as_json):
        from cluster.kuberay.rules import KINDS, broken

        found = [
            {"file": file, "manifest": _named(one), "reasons": broken(one)}
            for file in files
            for one in _read(file)
            if one.get("kind") in KINDS
        ]
    wrong = [one for one in found if one["reasons"]]
    code = BAD_SPEC if wrong or not found else 0
    if as_json:
        click.echo(json.dumps({"manifests": found, "exit_code": code}))
        sys.exit(code)
    if not found:
        stop(
            BAD_SPEC,
            f"No {', '.join(KINDS[:-1])} or {KINDS[-1]} in {', '.join(files)}. Check the paths.",
            False,
        )
    for one in found:
        click.echo(f"{one['file']}, {one['manifest']}: {'refused' if one['reasons'] else 'nothing is wrong'}")
        for reason in one["reasons"]:
            click.echo(f"  {reason}")
    sys.exit(code)


def _named(manifest: dict[str, Any]) -> str:
    metadata = manifest.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    return f"{manifest.get('kind')} {name or 'without a name'}"


def _read(file: str) -> Iterator[dict[str, Any]]:
    """The manifests of a YAML stream, those in Lists too. Raises SpecError."""
    import yaml

    from jobs.spec import SpecError

    try:
        with click.open_file(file, encoding="utf-8") as stream:
            documents = list(yaml.safe_load_all(stream))
    except OSError as error:
        raise SpecError(f"{file} can't be read: {error.strerror}. Check the path.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SpecError(
            f"{file} is not YAML: {' '.join(str(error).split())}. Check that it holds manifests."
        ) from error
    for document in documents:
        every = (
            document.get("items")
            if isinstance(document, dict) and document.get("kind") == "List"
            else [document]
        )
        yield from (one for one in every or () if isinstance(one, dict))


def _as_json(manifests: list[dict[str, Any]]) -> str:
    return f"{json.dumps({'apiVersion': 'v1', 'kind': 'List', 'items': manifests})}\n"


def _as_yaml(manifests: list[dict[str, Any]]) -> str:
    import yaml

    class Dumper(yaml.SafeDumper):
        """Texts of several lines as blocks, for people, and nothing by reference."""

        def ignore_aliases(self, data: Any) -> bool:
            return True

    def text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
        style = "|" if "\n" in value else None
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)

    Dumper.add_representer(str, text)
    written: str = yaml.dump_all(manifests, Dumper=Dumper, sort_keys=False, width=10**6, explicit_start=True)
    return written
