"""Contents: the things that a task is given of an item, each as the bytes of one file, wherever they lay."""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["video", "image", "text", "tensor"]

#: What a folder is searched for.
SUFFIXES: dict[Kind, tuple[str, ...]] = {
    "video": (".mp4", ".m4v", ".mov", ".mkv", ".webm"),
    "image": (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"),
    "text": (".txt",),
    "tensor": (".npy",),
}


@dataclass(frozen=True)
class Content:
    """One thing that a task is given: UTF-8 for a text, an .npy for a tensor, a file for media."""

    name: str  #: the column of a table, or the suffix of a tar's members, that it is by default
    kind: Kind

    @property
    def suffixes(self) -> tuple[str, ...]:
        return SUFFIXES[self.kind]


VIDEO = Content("video", "video")
IMAGE = Content("image", "image")
TEXT = Content("text", "text")
LATENTS = Content("latents", "tensor")
PAIR = (Content("first", "image"), Content("second", "image"))
