"""Alerts of fires that failed, were missed or came late, to a webhook: at least once each, by whoever looks next.

A body is one JSON object: `v`, the version of this schema; `id`, by which a receiver knows one that it has already;
`kind`, which is failed, late or missed; `schedule`; `tick`, the fire's time; `time`, when it was found out; `run_id`,
empty where there is no run; `exit_code`, null where there is none; `reason`; `host`. Fields may be added.
"""

import http.client
import json
import os
import socket
import urllib.error
import urllib.request
from collections.abc import Callable
from datetime import datetime
from typing import Any

import tenacity

from jobs.scheduling.records import Alert
from jobs.scheduling.steps import passing
from jobs.scheduling.store import SENT, ScheduleStore
from perceiver_core.errors import PerceiverError
from pipelines.secrets import redacted

BODY_VERSION = 1
_TIMEOUT_S = 10.0
_TRIES = 4


class WebhookError(PerceiverError, OSError):
    """An alert could not be handed to the webhook; the message doesn't hold its address."""


class WebhookBusyError(WebhookError):
    """The webhook may take it when it is asked again."""


def send_alerts(
    store: ScheduleStore, now: datetime, say: Callable[[str], None], wait_s: float = 0.5
) -> list[Alert]:
    """Send what waits to be sent; those that could not be. That is recorded and said, and fails nothing.

    `wait_s`: before the second try; twice as long before each one after it.
    """
    lost = []
    alerts = store.to_send(now)
    passing("alerts taken")
    for alert in alerts:
        try:
            post(store.get(alert.schedule).spec.webhook, body(alert), wait_s)
            how = SENT
        except WebhookError as error:
            how = redacted(str(error))
            say(f"{alert.schedule}: the alert of the {alert.kind} fire of {alert.tick} was not sent: {how}")
            lost.append(alert)
        passing("alert sent")
        store.sent(alert, how, now)
    return lost


def body(alert: Alert) -> dict[str, Any]:
    """What a webhook is told."""
    return {
        "v": BODY_VERSION,
        "id": f"{alert.schedule}/{alert.tick}/{alert.kind}",
        "kind": alert.kind,
        "schedule": alert.schedule,
        "tick": alert.tick,
        "time": alert.time,
        "run_id": alert.run_id,
        "exit_code": alert.exit_code,
        "reason": alert.reason,
        "host": socket.gethostname(),
    }


def post(variable: str | None, body: dict[str, Any], wait_s: float) -> None:
    """POST to the address that a variable of the environment holds. Raises WebhookError."""
    address = os.environ.get(variable or "", "")
    if not address:
        raise WebhookError(
            f"the environment variable {variable}, which is to hold its address, is not set here."
        )
    if not address.startswith(("https://", "http://")):
        raise WebhookError(f"{variable} must hold an address that begins with https:// or http://.")
    again = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(WebhookBusyError),
        wait=tenacity.wait_exponential(multiplier=wait_s),
        stop=tenacity.stop_after_attempt(_TRIES),
        reraise=True,
    )
    try:
        again(_posted, address, json.dumps(body).encode())
    except WebhookBusyError as error:
        raise WebhookError(f"{error}, {_TRIES} times.") from None


def _posted(address: str, body: bytes) -> None:
    """One try. What clients say of a failure may hold the address: only its kind is told."""
    try:
        request = urllib.request.Request(address, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S):
            pass
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 429 or error.code >= 500:
            raise WebhookBusyError(f"the webhook answered {error.code}") from None
        raise WebhookError(
            f"the webhook refused it with {error.code}: check its address, and what it expects."
        ) from None
    except TimeoutError:
        raise WebhookBusyError(f"the webhook did not answer within {_TIMEOUT_S:.0f} s") from None
    except (OSError, http.client.HTTPException) as error:
        cause = getattr(error, "reason", error)
        what = (
            os.strerror(cause.errno) if isinstance(cause, OSError) and cause.errno else type(cause).__name__
        )
        raise WebhookBusyError(f"the webhook could not be reached ({what})") from None
    except ValueError:  # of an address that is none
        raise WebhookError("the webhook's address can't be read. Check the variable.") from None
