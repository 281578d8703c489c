"""The places where a kill could come between two steps of a commit, by name: tests stop processes at each of them."""

POINTS = (
    "draft begun",  # an empty file where drafts are
    "draft written",  # whole, perhaps not on the disk yet
    "draft synced",
    "created",  # visible under its name; the folder's entry perhaps not on the disk yet
    "create acknowledged",
    "quarantine committed",  # a shard's bad rows are safe, its part isn't there
    "part committed",
    "snapshot written",
    "table published",  # staged parts are in data/, the manifest isn't there
    "manifest published",
    "staged parts deleted",
)


def passing(point: str) -> None:
    """Called at each of POINTS. Does nothing; tests put something else in its place."""
