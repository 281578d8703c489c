"""A job's section `schedule`: when it fires, and what becomes of fires that come too late or on top of each other."""

import difflib
import re
from datetime import timedelta
from typing import Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from pydantic import Field, field_validator

from jobs.durations import duration
from jobs.scheduling.cron import check_cron
from jobs.strict import Strict

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class ScheduleSpec(Strict):
    """When the job fires, once it is applied: perceive schedule apply."""

    cron: str = Field(
        description="minute, hour, day of the month, month and day of the week, such as 30 2 * * * (every day at 02:30)"
    )
    timezone: str = Field(default="UTC", description="whose clock that is, such as Europe/Berlin")
    overlap: Literal["forbid", "queue", "replace", "allow"] = Field(
        default="forbid",
        description="while the run of the fire before goes on: forbid skips this one, queue lets it wait, replace "
        "stops that one first, allow has both",
    )
    catch_up: Literal["none", "latest", "all"] = Field(
        default="latest",
        description="which of the fires that nobody looked at in time, or that came in a pause, are made up for",
    )
    max_catch_up: int = Field(
        default=10, ge=1, le=1000, description="so many fires are made up for, or wait, at most: the newest"
    )
    start_deadline: str | None = Field(
        default=None,
        description="a fire that has not begun so long after its time is missed, such as 30m, 2h or 1d; by default "
        "it never is",
    )
    jitter: str | None = Field(
        default=None,
        description="each fire comes up to so much later, the same of each whoever looks; by default not at all",
    )
    webhook: str | None = Field(
        default=None,
        description="the environment variable that holds the address to which failed, missed and late fires are POSTed",
    )

    @field_validator("cron")
    @classmethod
    def _fires(cls, cron: str) -> str:
        check_cron(cron)
        return " ".join(cron.split())

    @field_validator("timezone")
    @classmethod
    def _known(cls, name: str) -> str:
        zone_named(name)
        return name

    @field_validator("start_deadline", "jitter")
    @classmethod
    def _lasts(cls, text: str | None) -> str | None:
        if text is not None and not duration(text):
            raise ValueError(f"expected a span of time longer than nothing; got {text!r}.")
        return text

    @field_validator("webhook")
    @classmethod
    def _named(cls, name: str | None) -> str | None:
        # The address itself, which may be a secret, is not repeated.
        if name is not None and not _VARIABLE.fullmatch(name):
            raise ValueError(
                "expected the name of an environment variable, such as PERCEIVER_WEBHOOK: an address may hold a "
                "secret, and a job file is stored and shown in many places. Put the address into that variable, where "
                "perceive tick is called."
            )
        return name

    @property
    def zone(self) -> ZoneInfo:
        return ZoneInfo(self.timezone)

    @property
    def deadline(self) -> timedelta | None:
        return duration(self.start_deadline) if self.start_deadline else None

    @property
    def spread(self) -> timedelta:
        return duration(self.jitter) if self.jitter else timedelta(0)

    @staticmethod
    def of(document: dict[str, Any]) -> "ScheduleSpec":
        """The schedule of a job that was checked before, as a document."""
        return ScheduleSpec.model_validate(document["schedule"])


def zone_named(name: str) -> ZoneInfo:
    """A time zone by its name. Raises ValueError, with the nearest name that there is."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):  # OSError: of a folder of zones, such as Europe
        known = {zone.lower(): zone for zone in sorted(available_timezones())}
        last = {zone.rpartition("/")[2]: zone for zone in known}
        asked = name.lower().replace(" ", "_")
        near = difflib.get_close_matches(asked, [*known, *last], n=1)
        meant = f" Did you mean {known[last.get(near[0], near[0])]}?" if near else ""
        raise ValueError(
            f"there is no time zone {name!r}.{meant} Expected a name such as UTC, Europe/Berlin or America/New_York."
        ) from None
