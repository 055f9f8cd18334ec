"""HTML pages stand alone, escape everything, and run nothing but their own script."""

import base64
import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from jinja2 import UndefinedError

from cli.html_page import (
    ByteBudget,
    FacetNumbers,
    ShownMedium,
    data_uri,
    shown_medium,
    write_page,
)

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>'\" {{ 7 * 7 }}"
TEMPLATE = """{% extends "html_page.html.jinja" %}
{% block body %}<p title="{{ text }}">{{ text }}</p>{% endblock %}
"""


class Elements(HTMLParser):
    """Which elements a browser would see, and what is in them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, str] = {}
        self._open = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        self._open = tag

    def handle_data(self, data: str) -> None:
        self.texts[self._open] = self.texts.get(self._open, "") + data

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.seen)

    def policy(self) -> str:
        (policy,) = (
            attributes["content"]
            for tag, attributes in self.seen
            if tag == "meta" and attributes.get("http-equiv") == "Content-Security-Policy"
        )
        assert policy
        return policy


@pytest.fixture
def template(tmp_path: Path) -> Path:
    path = tmp_path / "some.html.jinja"
    path.write_text(TEMPLATE, encoding="utf-8")
    return path


def render_page(template: Path, values: dict[str, str], *, title: str, style: str = "") -> str:
    path = template.with_name("rendered.html")
    write_page(path, template, values, title=title, style=style)
    return path.read_text(encoding="utf-8")


def test_hostile_text_stays_text(template: Path) -> None:
    page = Elements(render_page(template, {"text": HOSTILE}, title=HOSTILE))
    assert (page.count("script"), page.count("img")) == (1, 0)
    assert page.texts["p"].strip() == HOSTILE
    assert page.texts["title"].strip() == HOSTILE
    (paragraph,) = (attributes for tag, attributes in page.seen if tag == "p")
    assert paragraph == {"title": HOSTILE}


def test_the_policy_allows_the_pages_own_style_and_script_and_nothing_else(template: Path) -> None:
    text = render_page(template, {"text": ""}, title="t", style=".own > b { color: red; }")
    for tag in ("style", "script"):
        ((content,),) = [re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)]
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}';" in Elements(text).policy()
    policy = Elements(text).policy()
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert not re.search(r"unsafe|https?:|\*|'self'", policy)
    assert ".own > b" in text  # not escaped: the hash is that of what stands there


def test_nothing_is_loaded_from_outside(template: Path) -> None:
    page = Elements(render_page(template, {"text": ""}, title="t"))
    for tag, attributes in page.seen:
        assert not {"href", "src", "action", "style"} & attributes.keys(), tag


def test_a_style_that_ends_its_element_is_refused(template: Path) -> None:
    with pytest.raises(ValueError, match="</style"):
        render_page(template, {"text": ""}, title="t", style="b {} </style><script>")


def test_a_value_that_a_template_misses_is_an_error(template: Path) -> None:
    with pytest.raises(UndefinedError, match="text"):
        render_page(template, {}, title="t")


def test_names_of_the_page_writer_cannot_be_taken(template: Path) -> None:
    with pytest.raises(ValueError, match="policy, script"):
        render_page(template, {"script": "x", "policy": "y", "text": ""}, title="t")


def test_a_page_that_fails_halfway_leaves_the_old_one(tmp_path: Path, template: Path) -> None:
    page = tmp_path / "out" / "page.html"
    write_page(page, template, {"text": "old"}, title="t")
    with pytest.raises(UndefinedError):
        write_page(page, template, {}, title="t")
    assert "old" in page.read_text(encoding="utf-8")
    assert [path.name for path in page.parent.iterdir()] == ["page.html"]


def test_only_pictures_become_part_of_a_page() -> None:
    assert data_uri(b"\xff\xd8", "image/jpeg") == "data:image/jpeg;base64,/9g="
    with pytest.raises(ValueError, match="image/svg"):
        data_uri(b"<svg onload=alert(1)>", "image/svg+xml")


def test_frames_of_a_video_have_times_and_those_of_an_image_none() -> None:
    video = shown_medium("a.mp4", [b"one", b"two"], times=[0, 1.26], facts="4.0 s")
    assert [frame.time for frame in video.frames] == ["0.0 s", "1.3 s"]
    assert [frame.source for frame in video.frames] == [
        data_uri(jpeg, "image/jpeg") for jpeg in (b"one", b"two")
    ]
    assert (video.path, video.facts, video.complaint) == ("a.mp4", "4.0 s", "")
    (still,) = shown_medium("b.jpg", [b"one"], times=None).frames
    assert still.time == ""
    with pytest.raises(ValueError, match="zip"):
        shown_medium("a.mp4", [b"one", b"two"], times=[0])


def test_a_page_takes_frames_while_it_has_room_for_them() -> None:
    large, small = (shown_medium("v.mp4", [bytes(size)], times=[0]) for size in (300, 30))
    room = ByteBudget(1.5 * large.num_bytes, complaint="no room, see --page-megabytes")
    assert room.fit(large) is large
    assert room.has_room
    assert room.fit(large) == ShownMedium("v.mp4", complaint="no room, see --page-megabytes")
    assert not room.has_room
    assert room.fit(small) is small  # what is small enough still fits
    assert room.fit(large).frames == ()


def test_a_medium_without_frames_keeps_its_own_complaint() -> None:
    broken = ShownMedium("v.mp4", complaint="cannot be decoded")
    assert ByteBudget(0).fit(broken) is broken


def test_facets_number_names_in_their_order() -> None:
    facets = FacetNumbers()
    assert [facets.number(name) for name in ("a b", "c", "a b")] == [0, 1, 0]
    assert list(facets.numbers) == ["a b", "c"]
