"""perceive tick: submit what is due."""

import dataclasses
import json
import sys
from typing import TYPE_CHECKING

import click

from jobs.cli.run import ending

if TYPE_CHECKING:
    from jobs.scheduling.tick import Look


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print what was done as one JSON object.")
def tick(as_json: bool) -> None:
    """Look at the schedules once, and submit what is due: each fire once, whoever calls this, and however often.

    Call it every minute, from cron or a systemd timer; called twice, late, or by several at once, it does no harm.
    Exit codes: 0 well, 5 a fire failed, was missed or came late (which is said once), or one could not be looked at.
    """
    with ending(None, as_json):
        from datetime import UTC, datetime

        from jobs.exit_codes import DONE, FAILED
        from jobs.scheduling.looking import look_once
        from jobs.scheduling.records import plain

        look = look_once(datetime.now(UTC), lambda text: click.echo(text, err=True))
        code = FAILED if look.alerts or look.troubles else DONE
    if as_json:
        told = {
            "ticks": [plain(one) for one in look.ticks],
            "alerts": [dataclasses.asdict(one) for one in look.alerts],
            "troubles": look.troubles,
        }
        click.echo(json.dumps(told | {"exit_code": code}))
    else:
        show(look)
    sys.exit(code)


def show(look: "Look") -> None:
    """What a look did, a line each; nothing if it did nothing."""
    for one in look.ticks:
        if one.state in ("done", "stopped", "skipped"):
            click.echo(f"{one.schedule}: the fire of {one.tick} is {one.state}. {one.reason}".rstrip())
    for alert in look.alerts:
        was = {"failed": "failed", "missed": "was missed", "late": "is late"}[alert.kind]
        click.echo(f"{alert.schedule}: the fire of {alert.tick} {was}. {alert.reason}".rstrip(), err=True)
        click.echo(f"Next: perceive schedule history {alert.schedule}", err=True)
