"""Files of a web server."""

import re
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from pipelines.contents import VIDEO
from pipelines.items import list_items
from tests.pipelines.sources.reading import chosen, opened


class Ranges(SimpleHTTPRequestHandler):
    """The standard library's server, which leaves out ranges; what is called away leads up."""

    asked: ClassVar[list[str]] = []

    def do_HEAD(self) -> None:
        self.asked.append(self.path)
        if self.path.endswith("away.mp4"):
            return self._away()
        return super().do_HEAD()

    def do_GET(self) -> None:
        self.asked.append(self.path)
        if self.path.endswith("away.mp4"):
            return self._away()
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        path = Path(self.translate_path(self.path))
        if not wanted or not path.is_file():
            return super().do_GET()
        data = path.read_bytes()
        part = data[int(wanted[1]) : int(wanted[2]) + 1]
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {wanted[1]}-{int(wanted[1]) + len(part) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.wfile.write(part)
        return None

    def _away(self) -> None:
        self.send_response(302)
        self.send_header("Location", "/up.mp4")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        return


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), partial(Ranges, directory=str(tmp_path)))
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield f"http://127.0.0.1:{httpd.server_address[1]}"
    httpd.shutdown()
    thread.join()
    httpd.server_close()


def test_a_link_is_not_led_elsewhere(server: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/t.csv").write_text("video\naway.mp4\n")
    (tmp_path / "up.mp4").write_bytes(b"outside")
    Ranges.asked.clear()
    [row] = opened(chosen(f"{server}/in/t.csv", (VIDEO,)))
    assert "/in/away.mp4: its server doesn't say how long it is, or leads elsewhere" in row["error"]
    assert "/in/away.mp4" in Ranges.asked
    assert "/up.mp4" not in Ranges.asked
    [row] = opened(chosen(f"{server}/in/away.mp4", (VIDEO,)))  # what the user names is followed
    assert row["video"] == b"outside"


def test_a_file_a_folder_and_a_link_of_a_web_server(server: str, tmp_path: Path) -> None:
    (tmp_path / "in/deep").mkdir(parents=True)
    (tmp_path / "in/a.mp4").write_bytes(b"first" * 1000)
    (tmp_path / "in/deep/b.mp4").write_bytes(b"second" * 1000)
    (tmp_path / "in/t.csv").write_text(
        f"video\na.mp4\n{server}/in/deep/b.mp4\n../up.mp4\n{server}/in/%2e%2e/up.mp4\n"
    )
    (tmp_path / "up.mp4").write_bytes(b"outside")
    items = list(list_items(f"{server}/in/", (".mp4",)))
    assert [item.uri for item in items] == [f"{server}/in/a.mp4", f"{server}/in/deep/b.mp4"]
    assert [item.size for item in items] == [5000, 6000]
    assert [row["video"] for row in opened(chosen(f"{server}/in/", (VIDEO,), format="files"))] == [
        b"first" * 1000, b"second" * 1000,
    ]  # fmt: skip
    assert [row["video"] for row in opened(chosen(f"{server}/in/a.mp4", (VIDEO,)))] == [b"first" * 1000]
    rows = opened(chosen(f"{server}/in/t.csv", (VIDEO,)))
    assert [row.get("video") for row in rows] == [b"first" * 1000, b"second" * 1000, None, None]
    assert "may not hold .." in rows[2]["error"]
    assert "may not hold .." in rows[3]["error"]
