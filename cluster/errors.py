"""The root of this room's errors, which knows nothing of the other rooms: `jobs` makes errors of its own of them."""


class ClusterError(RuntimeError):
    """The place where a run was to happen can't be used; the message says why and what to do."""


class ConnectionLostError(ClusterError):
    """The cluster does not answer; it may again."""
