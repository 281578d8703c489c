"""Which source an input is, by what the job says of it and what lies there."""

from collections.abc import Mapping, Sequence

from pipelines.contents import Content
from pipelines.limits import Limits
from pipelines.sources import Source
from pipelines.sources.files import Files


def choose(
    uris: Sequence[str],
    format: str,
    columns: Mapping[str, str],
    keep: Sequence[str],
    contents: Sequence[tuple[Content, ...]],
    limits: Limits,
) -> Source:
    """The source of an input, for a task that can be given one of these sets of contents.

    Raises InputError where the input has none of them, or what the job says doesn't fit it.
    """
    [content] = contents[0]
    return Files(tuple(uris), content)
