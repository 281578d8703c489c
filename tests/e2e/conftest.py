"""The Ray head that submissions go to."""

from tests.cluster.conftest import head

__all__ = ["head"]
