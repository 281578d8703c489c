"""Names as text: on Linux a file's may be any bytes, and tables, events and pages hold UTF-8.

What is UTF-8 stands as it is. All else has its bytes in percent, as web addresses have them.
"""

import os
from urllib.parse import quote, unquote_to_bytes

_FILE = "file://"


def address(path: str) -> str:
    """A local path or a URI as text that opens the same file: a name that is no UTF-8 makes a path a file URI."""
    return path if _is_text(path) else _FILE + quote(os.fsencode(path))


def path_of(uri: str) -> str:
    """What `address` was given. Other file URIs stay: what people write in them is taken as it stands."""
    if uri.startswith(_FILE + "/"):
        path = os.fsdecode(unquote_to_bytes(uri.removeprefix(_FILE)))
        if not _is_text(path):
            return path
    return uri


def legible(name: str) -> str:
    """A name within a file, such as of a tar's member, for people to read; ids are made of the name itself."""
    return name if _is_text(name) else quote(name.encode(errors="surrogateescape"))


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:  # Python keeps other bytes as lone surrogates
        return False
    return True
