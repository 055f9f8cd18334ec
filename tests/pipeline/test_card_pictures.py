"""The pictures on the data card, measured in their pixels."""

from pathlib import Path

from PIL import Image

from pipeline.card import plot_funnel, plot_lengths


def test_the_funnels_bars_are_as_long_as_their_counts(tmp_path: Path) -> None:
    """100, 50 and 25 of 100: the widest dark run of each bar is measured in the picture."""
    plot_funnel([("asked", 100), ("read", 50), ("kept", 25)], tmp_path / "funnel.png")
    picture = Image.open(tmp_path / "funnel.png").convert("RGB")
    dark = (0x2A, 0x6F, 0x97)
    widths = []
    for y in range(picture.height):
        row = picture.crop((0, y, picture.width, y + 1)).tobytes()
        widths.append(sum(tuple(row[x : x + 3]) == dark for x in range(0, len(row), 3)))
    longest = sorted({width for width in widths if width > 10}, reverse=True)
    full = longest[0]
    assert [round(width / full, 2) for width in longest] == [1.0, 0.5, 0.25]


def test_lengths_draw_with_no_rows_one_row_and_far_apart(tmp_path: Path) -> None:
    plot_lengths({"a": [], "b": [3], "c": [1, 5000]}, tmp_path / "lengths.png")
    assert Image.open(tmp_path / "lengths.png").size[0] > 500
