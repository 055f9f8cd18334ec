"""The page and the records of rollouts, of a tiny model's real attention over sandbox clips."""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import get_args

import pytest
import torch
from helpers.browser import open_browser, require_chromium
from helpers.html_tags import Tags
from helpers.rollout_scenes import P2R, Scene, render_world, token_bytes

from schemas.questions import MediaRef
from train.algorithms.appo import AppoConfig, Strategy, frame_scores, select_frames
from train.monitoring.rollout_page import write_rollout_page
from train.monitoring.rollout_records import write_rollout_records
from train.monitoring.rollout_tokens import LEVELS, weight_level
from train.rewards.group_rewarder import GroupRewarder
from train.rewards.judge_client import JudgeClient
from train.rewards.segment_rewards import RewardConfig
from train.rollouts.types import RolloutGroup, ScoredGroup

CONFIG = AppoConfig(score_tokens=5, frames_per_rollout=2, tokens_per_frame=12)
HOSTILE = "</span><script>document.title='owned'</script>"


@dataclass(frozen=True)
class Shown:
    """What a page was made of."""

    scene: Scene
    groups: list[ScoredGroup]

    def write(
        self, path: Path, groups: Sequence[ScoredGroup] | None = None, *, max_bytes: float = 60e6
    ) -> str:
        write_rollout_page(
            path,
            self.groups if groups is None else groups,
            step=20,
            loader=self.scene.loader,
            cell_seconds=self.scene.inputs.cell_seconds,
            token_bytes=token_bytes(),
            config=CONFIG,
            max_bytes=max_bytes,
        )
        return path.read_text("utf-8")


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    """Two groups with right and wrong rollouts."""
    folder = tmp_path_factory.mktemp("scene")
    questions = render_world(folder / "world", clips_=4, questions=4)
    scene = Scene(folder / "world")
    options = RewardConfig(perception_tokens=(1, 999), reasoning_tokens=(1, 999))
    with JudgeClient(
        "oracle:5", ledger_path=folder / "judge-0.duckdb", media_root=folder / "world"
    ) as judge:
        rewarder = GroupRewarder(P2R, options, judge)
        groups = scene.scored(questions[:2], rewarder, config=CONFIG)
    yield Shown(scene, groups)
    scene.close()


class Article(HTMLParser):
    """Of one group's markup: tokens by rollout, crucial and heat cells, headings by side."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.sides: list[dict[str, list[tuple[str, str, str]]]] = []
        self.film: list[bool] = []
        self.heat: list[list[int]] = []
        self._rollout = ""
        self._classes: list[str] = []
        self._tooltip = ""
        self._in_tokens = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        classes = values.get("class", "").split()
        if "side" in classes:
            self.sides.append({})
        if "rollout" in classes:
            self._rollout = f"rollout {len(self.sides[-1])}"
            self.sides[-1][self._rollout] = []
        if tag == "div":
            self._in_tokens = "tokens" in classes
        if tag == "tr" and "film" not in classes:
            self.heat.append([])
        if tag == "td" and "heat" in classes:
            (level,) = [int(name[1:]) for name in classes if name[0] == "h" and name != "heat"]
            self.heat[-1].append(level)
        if tag == "img" and "frames at" in values.get("alt", ""):
            self.film.append(self._film_is_crucial)
        if tag == "td":
            self._film_is_crucial = "crucial" in classes
        if tag == "span" and self._in_tokens:
            self._classes, self._tooltip = classes, values.get("title", "")
            self.sides[-1][self._rollout].append(("", " ".join(classes), self._tooltip))

    def handle_endtag(self, tag: str) -> None:
        if tag == "div":
            self._in_tokens = False

    def handle_data(self, data: str) -> None:
        if self._in_tokens and self.sides and self._rollout:
            text, classes, tooltip = self.sides[-1][self._rollout][-1]
            self.sides[-1][self._rollout][-1] = (text + data, classes, tooltip)


def articles(html: str) -> list[Article]:
    return [Article(part) for part in html.split('<article class="group"')[1:]]


def right_places(group: ScoredGroup) -> list[int]:
    return [i for i, one in enumerate(group.rewards.reasoning) if one.accuracy >= 0.5]


def test_tokens_stand_in_their_sides_coloured_by_weight_and_segment(
    shown: Shown, tmp_path: Path
) -> None:
    pages = articles(shown.write(tmp_path / "page.html"))
    assert len(pages) == len(shown.groups)
    for group, page in zip(shown.groups, pages, strict=True):
        right = right_places(group)
        assert 0 < len(right) < group.group.size
        wrong = [place for place in range(group.group.size) if place not in right]
        assert group.weights is not None
        for side, places in zip(page.sides, (right, wrong), strict=True):
            assert len(side) == len(places)
            for place, tokens in zip(places, side.values(), strict=True):
                rollout = group.group.rollouts[place]
                texts, classes, tooltips = zip(*tokens, strict=True)
                assert "".join(texts) == rollout.text + "▪"
                weights = group.weights[place].tolist()
                for number, (of_token, words) in enumerate(zip(classes, tooltips, strict=True)):
                    role = "p" if rollout.segment_ids[number] == 1 else "r"
                    level = weight_level(weights[number], CONFIG.max_weight)
                    assert of_token.split()[:3] == ["t", role, f"w{level}"]
                    assert f"weight {weights[number]:.3f}" in words
    levels = {
        c.split()[2]
        for page in pages
        for side in page.sides
        for t in side.values()
        for _, c, _ in t
    }
    assert len(levels) > 2  # the weights differ, and so do their colours


def test_frames_carry_their_attention_and_crucial_ones_are_framed(
    shown: Shown, tmp_path: Path
) -> None:
    for group, page in zip(
        shown.groups, articles(shown.write(tmp_path / "page.html")), strict=True
    ):
        assert group.crucial_frames is not None
        assert group.frame_attention is not None
        crucial = group.crucial_frames.tolist()
        assert page.film == crucial * 2  # once on each side
        scores = frame_scores(group.frame_attention, CONFIG.score_tokens)
        shares = scores / scores.sum(dim=1, keepdim=True)
        right = right_places(group)
        order = [*right, *(i for i in range(group.group.size) if i not in right)]
        rows = [row for row in page.heat if row]
        expected = ((shares - shares.min()) / (shares.max() - shares.min()) * LEVELS).round().int()
        assert rows == expected[order].tolist()
        assert {min(map(min, rows)), max(map(max, rows))} == {0, LEVELS}


@pytest.mark.parametrize(
    ("weight", "level"), [(1.0, 0), (1.0001, 1), (1.07, 1), (1.071, 2), (1.35, 5), (1.7, 10)]
)
def test_a_weight_above_one_is_never_without_colour(weight: float, level: int) -> None:
    assert weight_level(weight, 1.7) == level
    assert weight_level(weight, 1.0) == 0


def test_the_page_stands_alone_and_shows_hostile_text_as_text(shown: Shown, tmp_path: Path) -> None:
    first = shown.groups[0]
    question = first.group.question.model_copy(update={"problem": HOSTILE, "data_source": HOSTILE})
    group = RolloutGroup(question, first.group.prompt, first.group.rollouts)
    html = shown.write(tmp_path / "page.html", [replace(first, group=group)])
    assert HOSTILE not in html
    tags = Tags(html)
    assert sum(tag == "script" for tag, _ in tags.tags) == 1
    assert any(HOSTILE in text for text in tags.texts)
    policies = [attributes["content"] for _, attributes in tags.tags if "http-equiv" in attributes]
    assert "default-src 'none'" in str(policies)
    for _, attributes in tags.tags:
        assert "style" not in attributes
        assert not any(name.startswith("on") for name in attributes)
        source = attributes.get("src") or "data:"
        assert source.startswith("data:")


def test_what_there_is_not_is_not_shown(shown: Shown, tmp_path: Path) -> None:
    """An algorithm without APPO, a group without right rollouts, a clip that has gone."""
    bare = replace(shown.groups[0], weights=None, frame_attention=None, crucial_frames=None)
    html = shown.write(tmp_path / "bare.html", [bare])
    for word in ("<dt>weight</dt>", "<dt>attention</dt>", "crucial</b>", 'class="heat'):
        assert word not in html
    assert html.count("frames at 0.0 s") == 2
    reasoning = tuple(replace(one, accuracy=0.0) for one in bare.rewards.reasoning)
    lost = replace(bare, rewards=replace(bare.rewards, reasoning=reasoning))
    assert "none in this group" in shown.write(tmp_path / "lost.html", [lost])
    gone = bare.group.question.model_copy(
        update={"media": (MediaRef(kind="video", path="videos/gone.mp4"),)}
    )
    group = RolloutGroup(gone, bare.group.prompt, bare.group.rollouts)
    html = shown.write(tmp_path / "gone.html", [replace(shown.groups[0], group=group)])
    assert "Frames not shown: missing_file" in html


def test_rewards_by_name_stand_below_their_rollout(shown: Shown, tmp_path: Path) -> None:
    group = shown.groups[0]
    values = tuple(math.nan if place == 1 else place / 4 for place in range(group.group.size))
    rewards = replace(group.rewards, named={"brevity": values, "<b>": values})
    named = replace(group, rewards=rewards)
    html = shown.write(tmp_path / "named.html", [named])
    assert "brevity 0.50 · &lt;b&gt; 0.50" in html
    assert "brevity missing · &lt;b&gt; missing" in html
    assert "brevity" not in shown.write(tmp_path / "plain.html", [group])
    write_rollout_records(tmp_path / "named.jsonl", [named], [None], step=1, config=CONFIG)
    record = json.loads((tmp_path / "named.jsonl").read_text("utf-8"))
    found = [rollout["rewards"]["named"]["brevity"] for rollout in record["rollouts"]]
    assert found == [None if math.isnan(value) else value for value in values]


def test_a_group_without_room_for_its_frames_says_so(shown: Shown, tmp_path: Path) -> None:
    """Frames stand above both sides: room for one and a half groups shows one."""
    whole = shown.write(tmp_path / "whole.html")
    sources = sum(len(part.partition('"')[0]) for part in whole.split('src="data:image/jpeg')[1:])
    html = shown.write(tmp_path / "page.html", max_bytes=0.75 * sources)
    films = [len(page.film) for page in articles(html)]
    assert films == [8, 0]
    assert html.count("Frames not shown: the page has no room") == 1


def test_records_choose_the_same_frames_again(shown: Shown, tmp_path: Path) -> None:
    path = tmp_path / "rollouts-000020.jsonl"
    seconds = [shown.scene.inputs.cell_seconds(group.group.question) for group in shown.groups]
    write_rollout_records(path, shown.groups, seconds, step=20, config=CONFIG)
    records = [json.loads(line) for line in path.read_text().splitlines()]
    for record, group in zip(records, shown.groups, strict=True):
        assert record["question_id"] == group.group.question.question_id
        assert record["step"] == 20
        rollouts = record["rollouts"]
        assert record["cell_seconds"] == [0.0, 1.0, 2.0, 3.0]
        assert group.crucial_frames is not None
        assert group.frame_attention is not None
        assert group.weights is not None
        assert record["crucial_frames"] == group.crucial_frames.tolist()
        scores = torch.tensor([one["frame_scores"] for one in rollouts])[:, None]
        accuracy = torch.tensor([one["rewards"]["reasoning"]["accuracy"] for one in rollouts])
        for strategy in get_args(Strategy):
            config = replace(CONFIG, strategy=strategy)
            chosen = select_frames(group.frame_attention, accuracy, config)
            assert torch.equal(select_frames(scores, accuracy, config), chosen)
        for place, (one, rollout) in enumerate(zip(rollouts, group.group.rollouts, strict=True)):
            count = len(rollout.token_ids)
            assert one["segments"] == rollout.segment_ids.tolist()
            assert one["weights"] == group.weights[place, :count].tolist()
            mean = group.frame_attention[place, :count].mean(dim=0)
            assert one["mean_attention"] == pytest.approx(mean.tolist())
            assert one["is_right"] == (place in right_places(group))
            perception = group.rewards.perception
            assert perception is not None
            assert one["rewards"]["perception"]["total"] == perception[place].total


@pytest.mark.slow
@pytest.mark.heavy
@pytest.mark.parametrize("width", [500, 1000, 1280])
def test_a_browser_shows_it_without_asking_for_anything(
    shown: Shown, tmp_path: Path, width: int
) -> None:
    require_chromium()
    path = tmp_path / "page.html"
    shown.write(path)
    with open_browser(tmp_path / "profile") as browser:
        browser.driver.set_window_size(width, 1000)
        browser.open(path.as_uri())
        assert browser.run("document.title") == "Rollouts of step 20"
        assert browser.run("document.documentElement.scrollWidth <= window.innerWidth")
        assert browser.run("[...document.images].every((image) => image.naturalWidth > 0)")
        # The scale's colours have an effect under the page's own policy.
        tints = browser.run(
            "new Set([...document.querySelectorAll('.tokens .t')]"
            ".map((one) => getComputedStyle(one).backgroundColor)).size"
        )
        assert tints > 2
        shown_now = "[...document.querySelectorAll('article')].filter((one) => !one.hidden).length"
        choose = "(name, value) => { const one = document.querySelector(`select[name=${name}]`);"
        choose += " one.value = value; one.dispatchEvent(new Event('input', {bubbles: true})); }"
        assert browser.run(shown_now) == 2
        browser.run(f"({choose})('outcome', 'correct')")
        assert browser.run(shown_now) == 0, "both groups have right and wrong rollouts"
        browser.run(f"({choose})('outcome', 'both')")
        assert browser.run(shown_now) == 2
        asked = [url for url in browser.requested_addresses() if not url.startswith("data:")]
        assert {url.partition("#")[0] for url in asked} == {path.as_uri()}
        assert browser.complaints() == []
