"""A build that asked judge and reader is audited: both stand beside the same labels."""

import json
from pathlib import Path
from typing import Any

import pytest

from cli.config import EXIT_OK
from judges.audit import main
from pipeline.build_cot import main as build
from sandbox.clips import main as render
from sandbox.truth_labels import main as label_from_truth

pytestmark = pytest.mark.heavy

JUDGE = "oracle:8,false_yes=0.4"
READER = "oracle:9,blind=0.3"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The report on a build with `--sufficiency both`, labelled from the sandbox's truth."""
    folder = tmp_path_factory.mktemp("both")
    world, out, audit = folder / "world", folder / "out", str(folder / "audit")
    size = ["--clips", "10", "--stills", "14", "--num-questions", "70", "--seed", "6"]
    render(["--output-dir", str(world), *size])
    options = ["--questions", str(world / "questions.json"), "--media-root", str(world)]
    options += ["--generator", "oracle:7,insufficient=0.3", "--judge", JUDGE]
    options += ["--blind-filter", READER, "--sufficiency", "both", "--frames", "uniform:2"]
    options += ["--frame-cache", str(folder / "frames"), "--output-dir", str(out)]
    assert build(options) == EXIT_OK
    assert main(["sample", audit, "--build", str(out), "--max-per-video", "9"]) == EXIT_OK
    labels = str(folder / "labels.jsonl")
    assert label_from_truth([audit, "--media-root", str(world), "--out", labels]) == EXIT_OK
    assert main(["label", audit, "--import", labels]) == EXIT_OK
    assert main(["run", audit, "--judge", JUDGE]) == EXIT_OK
    assert main(["run", audit, "--judge", READER, "--variants", "answer"]) == EXIT_OK
    assert main(["report", audit, "--resamples", "300", "--frames", "none"]) == EXIT_OK
    found: dict[str, Any] = json.loads(Path(audit, "report.json").read_text())
    page = Path(audit, "report.html").read_text()
    assert "sensitivity, difference" in page
    assert "specificity, difference" in page
    return found


@pytest.mark.slow
def test_both_stand_beside_the_same_labels_with_what_each_costs(report: dict[str, Any]) -> None:
    """A verdict is one call; an answer four without and four with the observation."""
    source, *asked = report["judges"]
    assert source["is_source"]
    found = {one["name"]: one for one in asked}
    assert set(found) == {JUDGE, f"{READER} [answer]"}
    verdict, answer = found[JUDGE], found[f"{READER} [answer]"]
    assert verdict["num_asked"] == answer["num_asked"] == report["rows"]["num_rows"]
    assert (verdict["calls_per_verdict"], answer["calls_per_verdict"]) == (1, 8)
    assert verdict["usd_per_1000"] == answer["usd_per_1000"] == 0
    # The judge finds all that suffices and lets through what does not; the reader is the other way.
    assert verdict["against_people"]["recall"]["value"] == 1
    assert verdict["against_people"]["specificity"]["value"] < 0.85
    assert answer["against_people"]["recall"]["value"] < 0.8
    assert answer["against_people"]["specificity"]["value"] > 0.85


def test_their_paired_differences_are_those_of_their_shares(report: dict[str, Any]) -> None:
    (pair,) = [one for one in report["pairs"] if {one["first"], one["second"]} == {
        JUDGE, f"{READER} [answer]"
    }]  # fmt: skip
    seen = {one["name"]: one["against_people"] for one in report["judges"]}
    for name, share in (("sensitivity", "recall"), ("specificity", "specificity")):
        difference = seen[pair["first"]][share]["value"] - seen[pair["second"]][share]["value"]
        found = pair[name]["difference"]
        assert found["value"] == pytest.approx(difference)
        assert found["low"] <= found["value"] <= found["high"]
    rows = seen[JUDGE]["rows"]
    assert pair["sensitivity"]["num_rows"] == rows["yes_yes"] + rows["no_yes"]
    assert pair["specificity"]["num_rows"] == rows["yes_no"] + rows["no_no"]
