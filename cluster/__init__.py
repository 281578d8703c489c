"""Where runs happen: the targets. Imports nothing of the other rooms."""

from cluster.errors import ClusterError as ClusterError
