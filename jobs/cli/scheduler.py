"""perceive scheduler: perceive tick in a loop, for where neither cron nor systemd is at hand."""

import dataclasses
import json
import signal
import threading
from types import FrameType

import click

from jobs.cli.run import ending
from jobs.cli.tick import show


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print what happens as JSON objects, one a line.")
def scheduler(as_json: bool) -> None:
    """Look at the schedules again and again, and submit what is due, until SIGTERM or Ctrl-C.

    It ends once it has done what it is at, with exit code 0; runs go on. Any number of these, and of perceive tick, may
    run at once.
    """
    ended = threading.Event()

    def end(signum: int, frame: FrameType | None) -> None:
        if ended.is_set():  # who asks twice does not want to wait
            raise KeyboardInterrupt
        ended.set()

    with ending(None, as_json):
        from jobs.scheduling.looking import look_on
        from jobs.scheduling.records import plain

        signal.signal(signal.SIGTERM, end)
        signal.signal(signal.SIGINT, end)
        for look in look_on(ended, lambda text: click.echo(text, err=True)):
            if not as_json:
                show(look)
                continue
            for one in look.ticks:
                click.echo(json.dumps({"what": "tick", **plain(one)}))
            for alert in look.alerts:
                click.echo(json.dumps({"what": "alert", **dataclasses.asdict(alert)}))
            for trouble in look.troubles:
                click.echo(json.dumps({"what": "trouble", "message": trouble}))
