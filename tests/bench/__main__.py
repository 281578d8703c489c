"""`make bench`: prints ratios against a peer, measured in this process on this machine."""

from tests.bench.heads import heads
from tests.bench.multimodal import encode_once

if __name__ == "__main__":
    heads()
    encode_once()
