"""perceive schedule: jobs at their times."""

import json
import sys
from typing import TYPE_CHECKING, Any

import click

from jobs.cli import options
from jobs.cli.run import ending

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from jobs.scheduling.records import Schedule, Tick
    from jobs.scheduling.store import ScheduleStore

_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


@click.group(no_args_is_help=True)
def schedule() -> None:
    """Run jobs at their times: by perceive tick, called every minute, or by perceive scheduler, which stays."""


@schedule.command()
@click.argument("file")
@options.overrides("schedule.cron='0 3 * * *'")
@options.target
@click.option(
    "--env", "variables", multiple=True, metavar="NAME",
    help="A variable of the scheduler's environment that goes along with each run, as in perceive submit.",
)  # fmt: skip
@click.option("--installed", is_flag=True, help="Use the perceiver-batch that the target has.")
@_JSON
def apply(
    file: str,
    overrides: tuple[str, ...],
    target: str,
    address: str | None,
    namespace: str | None,
    context: str | None,
    variables: tuple[str, ...],
    installed: bool,
    as_json: bool,
) -> None:
    """Have the job in FILE run at the times that its section schedule says, from now on.

    The schedule is called as the job is. Applied again, it goes on by what the file then says; fires that were there
    keep what they ran. Exit codes: 0 applied, 2 bad job.
    """
    with ending(None, as_json):
        from jobs.scheduling.applying import apply_schedule
        from jobs.scheduling.store import user_schedules
        from jobs.spec import load_job

        job = load_job(file, overrides)
        found, new = apply_schedule(
            job,
            user_schedules(),
            options.name_of(target, address, namespace, context),
            variables,
            send_code=not installed,
        )
    if as_json:
        click.echo(json.dumps(_plain(found) | {"new": new}))
        return
    click.echo(f"Schedule {found.name} {'is applied' if new else 'is as it was'}: version {found.version}.")
    click.echo(_line(found))
    click.echo(
        "Next: perceive tick, every minute (the README has lines for cron and systemd), or perceive scheduler"
    )


@schedule.command()
@click.argument("file")
@options.overrides("schedule.cron='0 3 * * *'")
@click.option("--json", "as_json", is_flag=True, help="As one JSON object, a List that kubectl takes.")
def render(file: str, overrides: tuple[str, ...], as_json: bool) -> None:
    """Print the job in FILE as a CronJob, for Kubernetes to run at its times without perceive tick.

    Nothing is sent: kubectl apply -f - takes it. Each fire's pod does what perceive submit --target kuberay does, and
    waits for the run's end. Exit codes: 0 rendered, 2 bad job, or a schedule that no CronJob can have.
    """
    with ending(None, as_json):
        from jobs.scheduling.rendering import render
        from jobs.spec import load_job

        manifests = render(load_job(file, overrides))
    if as_json:
        click.echo(json.dumps({"apiVersion": "v1", "kind": "List", "items": manifests}))
    else:
        import yaml

        click.echo(yaml.safe_dump_all(manifests, sort_keys=False), nl=False)


@schedule.command(name="list")
@click.option("--removed", is_flag=True, help="Also those that were removed.")
@_JSON
def list_schedules(removed: bool, as_json: bool) -> None:
    """Show the schedules, and when each fires next."""
    with ending(None, as_json):
        from jobs.scheduling.store import user_schedules

        found = user_schedules().all(removed)
    if as_json:
        click.echo(json.dumps({"schedules": [_plain(one) for one in found]}))
        return
    for one in found:
        click.echo(_line(one))
    next_one = f"history {found[0].name}" if found else "apply FILE"
    click.echo(f"{'' if found else 'No schedules. '}Next: perceive schedule {next_one}")


@schedule.command()
@click.argument("name")
@_JSON
def pause(name: str, as_json: bool) -> None:
    """Fire no more, until perceive schedule resume. Runs that are there go on."""
    found = _changed(lambda store, now: store.pause(name, now), as_json)
    _shown(found, f"Schedule {name} is paused. Next: perceive schedule resume {name}", as_json)


@schedule.command()
@click.argument("name")
@_JSON
def resume(name: str, as_json: bool) -> None:
    """Fire again; of what came in the pause, as many as catch_up says."""
    found = _changed(lambda store, now: store.resume(name, now), as_json)
    _shown(found, f"Schedule {name} goes on.\n{_line(found)}", as_json)


@schedule.command()
@click.argument("name")
@_JSON
def remove(name: str, as_json: bool) -> None:
    """Fire never again. A run that is there goes on, and the history stays."""
    found = _changed(lambda store, now: store.remove(name, now), as_json)
    _shown(found, f"Schedule {name} is removed. Next: perceive schedule history {name}", as_json)


@schedule.command()
@click.argument("name")
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="Fires shown at most.")
@click.option("--events", is_flag=True, help="All that happened, a JSON object a line.")
@_JSON
def history(name: str, limit: int, events: bool, as_json: bool) -> None:
    """Show what became of a schedule's fires, the latest first, and which alerts there were."""
    with ending(None, as_json):
        import dataclasses

        from jobs.scheduling.records import plain
        from jobs.scheduling.store import user_schedules

        store = user_schedules()
        found = store.get(name)
        ticks = store.ticks(name, limit=limit)
        alerts = store.alerts(name)[:limit]
        told = store.events(name) if events else []
    if as_json:
        listed = {"ticks": [plain(one) for one in ticks]}
        listed |= {"alerts": [dataclasses.asdict(one) for one in alerts]}
        click.echo(json.dumps(_plain(found) | listed | ({"events": told} if events else {})))
        return
    for event in told:
        click.echo(json.dumps(event))
    if events:
        return
    click.echo(_line(found))
    for one in ticks:
        click.echo(fire_line(one))
    for alert in alerts:
        said = f"webhook: {alert.webhook}" if alert.webhook else "no webhook"
        click.echo(f"  alert: the fire of {alert.tick} {alert.kind}, {said}")
    last = next((one.run_id for one in ticks if one.run_id), None)
    click.echo(f"Next: {f'perceive status {last}' if last else f'perceive schedule run-now {name}'}")


@schedule.command(name="run-now")
@click.argument("name")
@_JSON
def run_now(name: str, as_json: bool) -> None:
    """Fire once now, by the schedule's rule about overlaps; also while it is paused.

    Exit codes: 0 its run is submitted, or waits for its turn; 2 there is no such schedule; 5 it could not be.
    """
    with ending(None, as_json):
        from datetime import UTC, datetime

        from jobs.exit_codes import DONE, FAILED
        from jobs.scheduling.records import plain
        from jobs.scheduling.runs import SubmittedRuns
        from jobs.scheduling.store import user_schedules
        from jobs.scheduling.tick import fire
        from jobs.store import user_store

        runs = SubmittedRuns(user_store(), _told)
        one = fire(user_schedules(), runs, name, datetime.now(UTC), _told)
        code = DONE if one.state in ("submitted", "waiting", "claimed") else FAILED
    if as_json:
        click.echo(json.dumps(plain(one) | {"run_exit_code": one.exit_code, "exit_code": code}))
    else:
        click.echo(fire_line(one))
        next_one = f"status {one.run_id}" if one.run_id else f"schedule history {name}"
        click.echo(f"Next: perceive {next_one}")
    sys.exit(code)


def fire_line(one: "Tick") -> str:
    """A fire, for people."""
    code = "" if one.exit_code is None else f"  exit code {one.exit_code}"
    when = one.tick.removesuffix("+00:00").removesuffix(":00").replace("T", " ")
    return f"  {when}Z  {one.state:<9}  {one.run_id:<12}{code}  {one.reason}".rstrip()


def _changed(change: "Callable[[ScheduleStore, datetime], Schedule]", as_json: bool) -> "Schedule":
    """A schedule after a change to it, as of now."""
    with ending(None, as_json):
        from datetime import UTC, datetime

        from jobs.scheduling.store import user_schedules

        return change(user_schedules(), datetime.now(UTC))


def _shown(found: "Schedule", text: str, as_json: bool) -> None:
    click.echo(json.dumps(_plain(found)) if as_json else text)


def _plain(found: "Schedule") -> dict[str, Any]:
    """A schedule as JSON has it."""
    coming = _coming(found)
    return {
        "name": found.name,
        "version": found.version,
        "state": _state(found),
        "schedule": found.spec.model_dump(mode="json"),
        "target": found.terms.target,
        "variables": list(found.terms.variables),
        "installed": found.terms.installed,
        "next": coming,
    }


def _line(found: "Schedule") -> str:
    """A schedule, for people."""
    spec, coming = found.spec, _coming(found)
    when = f"next {coming}" if coming else _state(found)
    return f"{found.name}  {spec.cron} {spec.timezone}  {when}  overlap {spec.overlap}  {found.terms.target}"


def _state(found: "Schedule") -> str:
    return "removed" if found.removed else "paused" if found.paused else "on"


def _coming(found: "Schedule") -> str | None:
    """When it fires next, by its own clock."""
    if found.paused or found.removed:
        return None
    from datetime import UTC, datetime

    from jobs.scheduling.cron import fires

    spec = found.spec
    coming = next(fires(spec.cron, spec.zone, datetime.now(UTC)), None)
    return coming.astimezone(spec.zone).isoformat(timespec="minutes") if coming else None


def _told(text: str) -> None:
    click.echo(text, err=True)
