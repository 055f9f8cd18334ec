"""What stands in a piece of HTML, and where the links of a page lead."""

from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote


class Tags(HTMLParser):
    """All tags with their attributes, and all texts."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def linked(page: Path) -> dict[str, Path]:
    """What a page on disk links and plays beside itself, by address: all of it has to be there."""
    found = {}
    for tag, values in Tags(page.read_text("utf-8")).tags:
        address = values.get("href" if tag == "a" else "src") or ""
        if tag in ("a", "video") and not address.startswith("#"):
            found[address] = (page.parent / unquote(address.partition("#")[0])).resolve()
    return found


def walk_pages(start: Path) -> tuple[set[Path], list[str]]:
    """All pages that links lead to from `start`, and the links that lead nowhere.

    A place in a page is there, too, unless it holds the choice of a filter.
    """
    pages, todo, broken = set[Path](), [start.resolve()], list[str]()
    while todo:
        page = todo.pop()
        if page in pages:
            continue
        pages.add(page)
        for address, place in linked(page).items():
            fragment = unquote(address.partition("#")[2])
            if not place.exists():
                broken.append(f"{page}: {address}")
            elif place.suffix == ".html":
                todo.append(place)
                if fragment and "=" not in fragment and f'id="{fragment}"' not in place.read_text():
                    broken.append(f"{page}: {address} has no such place")
    return pages, broken
