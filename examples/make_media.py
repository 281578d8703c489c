"""Make the example videos, one of each class, from the unseen set: python examples/make_media.py"""

from pathlib import Path

from demo_clips import LABELS, UNSEEN, make_clip, write_mp4

MEDIA = Path(__file__).parent / "media"


def main() -> None:
    MEDIA.mkdir(exist_ok=True)
    for label, name in enumerate(LABELS):
        frames = 32 + 5 * label  # 1.28 to 2.68 seconds: whole windows and padded ones
        write_mp4(make_clip(label, UNSEEN + 500, frames), MEDIA / f"{name.replace(' ', '-')}.mp4")


if __name__ == "__main__":
    main()
