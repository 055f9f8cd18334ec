"""`make docs`: the site builds without a warning, its links lead somewhere, it asks for nothing."""

import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

import pytest

pytestmark = [pytest.mark.heavy, pytest.mark.slow]


class Page(HTMLParser):
    """The ids of a page, where it links to, and what a browser loads for it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.targets: list[str] = []
        self.loaded: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.ids |= {values[name] for name in ("id", "name") if values.get(name)}
        if tag == "a" and "href" in values:
            self.targets.append(values["href"])
        if tag in ("script", "img", "iframe") and values.get("src"):
            self.loaded.append(values["src"])
        if tag == "link" and values.get("rel") in ("stylesheet", "preconnect", "icon"):
            self.loaded.append(values["href"])


class Built(NamedTuple):
    """What Sphinx made, and what it printed on the way."""

    site: Path
    status: int
    warnings: str


@pytest.fixture(scope="module")
def built(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Built:
    out = tmp_path_factory.mktemp("site")
    doctrees = tmp_path_factory.mktemp("doctrees")
    options = ["-W", "--keep-going", "--quiet", "-b", "html", "-d", str(doctrees)]
    made = subprocess.run(
        [sys.executable, "-m", "sphinx", *options, str(repository / "docs"), str(out)],
        capture_output=True,
        text=True,
        check=False,
    )
    return Built(out, made.returncode, made.stderr)


@pytest.fixture
def site(built: Built) -> Path:
    return built.site


@pytest.mark.timeout(300)
def test_the_site_builds_without_a_warning(built: Built) -> None:
    assert built.status == 0, built.warnings
    assert "warning" not in built.warnings.lower(), built.warnings


@pytest.mark.timeout(300)
def test_links_and_anchors_of_the_site_lead_somewhere(site: Path) -> None:
    found = {path: Page(path.read_text("utf-8")) for path in site.rglob("*.html")}
    assert len(found) > 35
    broken = []
    for path, page in found.items():
        for target in page.targets:
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                continue
            file = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            ids = found[file].ids | {""} if file in found else {""}
            if not file.is_file() or unquote(parts.fragment) not in ids:
                broken.append(f"{path.name}: {target}")
    assert not broken, "\n".join(broken)


@pytest.mark.timeout(300)
def test_the_site_loads_nothing_from_elsewhere(site: Path) -> None:
    loaded = [
        (path.name, source)
        for path in site.rglob("*.html")
        for source in Page(path.read_text("utf-8")).loaded
    ]
    assert len(loaded) > 40
    assert not [each for each in loaded if urlsplit(each[1]).netloc]
    styles = [path.read_text("utf-8") for path in site.rglob("*.css")]
    assert styles
    assert not [text for text in styles if "url(http" in text or "@import url(" in text]


@pytest.mark.timeout(300)
def test_the_reference_shows_docstrings_of_public_functions(site: Path) -> None:
    text = (site / "api" / "algorithms.html").read_text("utf-8")
    assert 'id="train.algorithms.advantages.group_advantages"' in text
    assert "Centre and scale rewards inside each group" in text
