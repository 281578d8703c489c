"""What every section of a job is made of."""

import os
import re
from typing import Any

from pydantic import BaseModel, ConfigDict

from pipelines.secrets import check_no_secrets

#: A path of Windows, also after the folder that it was taken to be in.
_WINDOWS = re.compile(r"(?:^|(?<=/))([A-Za-z]):([\\/].*)")


class Strict(BaseModel):
    """A section of a job: of known fields only, and frozen."""

    # Inputs are hidden: pydantic's own text, which a Python object's maker sees, would repeat what looks like a key.
    model_config = ConfigDict(
        extra="forbid", frozen=True, arbitrary_types_allowed=True, hide_input_in_errors=True
    )


def address(uris: Any, may_refer: bool = False) -> Any:
    """A path or an address, or several, as a validator: not empty, without secrets, and this system's."""
    for uri in [uris] if isinstance(uris, str) else uris:
        if not uri:
            raise ValueError("expected a path or an address; got an empty text.")
        check_no_secrets(uri, may_refer)
        if os.name != "nt" and "://" not in uri and (windows := _WINDOWS.search(uri)):
            drive, path = windows.groups()
            wsl = f"/mnt/{drive.lower()}{path}".replace("\\", "/")
            raise ValueError(
                f"{windows[0]} is a path of Windows, and this is not: write it as it is here, such as {wsl} under WSL."
            )
    return uris
