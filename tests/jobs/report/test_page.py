"""The page: safe whatever it shows, by itself, and as large as it may be."""

import base64
import hashlib
import itertools
import json
import re
from dataclasses import asdict, replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from jobs.report.cards import Media
from jobs.report.page import MOST, PageError, rendered
from jobs.report.words import printable
from tests.jobs.report.looking import Seen
from tests.jobs.report.pages import DOT, attempt, page, summary

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</script><script>alert(1)</script>",
    "' onmouseover='alert(1)",
    "</title></style><iframe src=https://example.org>",
    "<!-- --!><![CDATA[",
    "{{ 7 * 7 }}{% raw %}",
    "\u202egpj.exe\u2028\x00\x1b[2J",
    "caf\udce9.mp4",  # bytes that are no UTF-8, as Python has them
    "]]>&lt;b&gt;",
]


def hostile(word: str) -> Seen:
    attempts = (
        attempt(error=word, message=word, host=word, device=word, environment={"python": word, "cpu": word}),
    )
    of = summary(
        job=word, task=word, limit=word or "x", output=word, attempts=attempts, retries={word: 2}, errors={word: 3},
        fingerprint={"options": {word: word}, "checkpoint": word, "code": word, "dtype": word},
    )  # fmt: skip
    return Seen(rendered(page("failed", word, of, word)))


@given(st.text(max_size=30))
@settings(max_examples=10, deadline=None)
@pytest.mark.parametrize("before", HOSTILE)
def test_whatever_strangers_say_stays_text(before: str, word: str) -> None:
    seen = hostile(before + word)
    seen.check()
    shown = re.sub(r"\s+", " ", printable(before).encode("utf-8", "backslashreplace").decode().strip())
    assert shown[:20].strip() in re.sub(r"\s+", " ", seen.text)
    assert seen.island["job"] == before + word


def test_nothing_is_evaluated_twice() -> None:
    assert "{{ 7 * 7 }}" in hostile("{{ 7 * 7 }}").text


def test_the_policy_lets_its_own_style_and_script_run_and_nothing_else() -> None:
    seen = Seen(rendered(page()))
    seen.check()
    [policy] = [a["content"] for t, a in seen.elements if a.get("http-equiv") == "Content-Security-Policy"]
    allowed = dict(part.split(" ", 1) for part in policy.split("; "))
    (_, style), _, (_, script) = seen.scripts
    for name, text in (("style-src", style), ("script-src", script)):
        assert (
            allowed[name] == f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
        )
    assert allowed.keys() == {
        "default-src", "base-uri", "form-action", "img-src", "media-src", "style-src", "script-src",
    }  # fmt: skip
    assert "</" not in script.replace("</script", "")


def test_it_carries_its_summary() -> None:
    of = summary()
    assert Seen(rendered(page(of=of))).island == json.loads(json.dumps(asdict(of)))


def test_headings_go_down_one_by_one_and_ids_are_there_once() -> None:
    seen = Seen(rendered(page()))
    levels = [int(tag[1]) for tag, _ in seen.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    ids = [attributes["id"] for _, attributes in seen.elements if "id" in attributes]
    assert len(ids) == len({*ids})
    named = {a.get(name) for _, a in seen.elements for name in ("aria-labelledby", "aria-describedby")} - {
        None
    }
    links = {(a["href"] or "")[1:] for tag, a in seen.elements if tag == "a"}
    assert named | links <= {*ids}


def test_pictures_and_clips_keep_their_place_and_say_what_they_are() -> None:
    media = [a for tag, a in Seen(rendered(page())).elements if tag in ("img", "video")]
    assert len(media) == 4
    for one in media:
        assert one["width"]
        assert one["height"]
        assert one.get("alt") or one.get("aria-label")


def test_a_page_that_is_too_large_is_refused() -> None:
    large = page()
    card = replace(large.groups[0].cards[2], media=(Media("Frame", "", DOT + "A" * MOST, 1, 1),))
    large = replace(large, groups=(replace(large.groups[0], cards=(card,)),))
    with pytest.raises(
        PageError, match=r"The report would have 5,\d\d\d,\d\d\d bytes, and may have 4,999,999\."
    ):
        rendered(large)


@given(st.text())
@example("a\u202eb\n\tc")
def test_what_is_invisible_is_seen(text: str) -> None:
    shown = printable(text)
    assert len(shown) == len(text)
    assert all(char.isprintable() or char in "\n\t" for char in shown)
    assert all(a == b for a, b in zip(shown, text, strict=True) if b.isprintable())
