"""What a report says: numbers that were worked out by hand, and honesty about what is not known."""

import json
from pathlib import Path
from typing import Any

import pytest
from helpers.small_audits import Row, rows_of, small_audit, verdicts_of

from judges.audits.arrays import audit_rows
from judges.audits.report.data_impact import in_finite_population
from judges.audits.report.results import ReportSettings, collect
from judges.audits.report.sections import sections_of
from judges.audits.store import AuditStore
from schemas.runs import start_run

pytestmark = pytest.mark.heavy

# 20 of 60 kept rows and 20 of 20 rejected ones were drawn. Of the kept 2 are wrong, of the
# rejected 5: of 80 rows 54 + 15 are judged as people do, and 54 + 5 are sufficient.
KEPT_AND_REJECTED = [
    *rows_of(18, "yes", "s", weight=3),
    *rows_of(2, "yes", "i", weight=3),
    *rows_of(15, "no", "i"),
    *rows_of(5, "no", "s"),
]


def reported(audit: Path, **options: Any) -> dict[str, Any]:
    """What report.json gets, and `said`: the sentences of screen and page."""
    with AuditStore.open(audit, start_run("test", {})) as store:
        rows = audit_rows(store.items(), store.strata(), store.labels())
        facts = collect(
            rows,
            store.strata(),
            store.labels(),
            store.verdicts(),
            store.source,
            ReportSettings(**({"widths": (), "resamples": 200} | options)),
        )
    said = " ".join(sentence for section in sections_of(facts) for sentence in section.sentences)
    return json.loads(json.dumps(facts.as_json(), allow_nan=False)) | {"said": said}


def test_numbers_are_those_of_the_population_and_not_of_the_sample(tmp_path: Path) -> None:
    small_audit(tmp_path, KEPT_AND_REJECTED)
    content = reported(tmp_path, resamples=2000)
    (source,) = content["judges"]
    seen = source["against_people"]
    # The sample's own agreement would be 33 of 40.
    assert seen["agreement"]["value"] == pytest.approx(69 / 80, abs=1e-12)
    assert seen["precision"]["value"] == pytest.approx(0.9, abs=1e-12)
    assert seen["recall"]["value"] == pytest.approx(54 / 59, abs=1e-12)
    # Chance: 0.75 of both said yes, 0.7375 of people: kappa = (po - pe) / (1 - pe).
    by_chance = 0.75 * 0.7375 + 0.25 * 0.2625
    assert seen["kappa"]["value"] == pytest.approx((69 / 80 - by_chance) / (1 - by_chance))
    low, high = seen["agreement"]["low"], seen["agreement"]["high"]
    assert 0.72 < low < 69 / 80 - 0.04
    assert 69 / 80 + 0.03 < high < 0.95


def test_consequences_for_the_data_are_told_in_rows(tmp_path: Path) -> None:
    small_audit(tmp_path, KEPT_AND_REJECTED)
    found = reported(tmp_path)["consequences"]
    assert found["kept"]["wrong"]["value"] == pytest.approx(0.1)
    assert found["kept"]["num_wrong"]["value"] == pytest.approx(6)
    assert found["rejected"]["wrong"]["value"] == pytest.approx(0.25)
    assert found["rejected"]["num_wrong"]["value"] == pytest.approx(5)
    # All 20 rejected rows were drawn and labelled: nothing is left to guess.
    assert found["rejected"]["wrong"]["low"] == found["rejected"]["wrong"]["high"]
    assert found["prevalence"]["naive"] == pytest.approx(0.75)
    assert found["prevalence"]["rogan_gladen"]["value"] == pytest.approx(59 / 80)
    assert found["prevalence"]["prediction_powered"]["value"] == pytest.approx(59 / 80)


def test_an_unscored_verdict_is_counted_and_is_no_no(tmp_path: Path) -> None:
    rows = [*rows_of(10, "yes", "s"), *rows_of(10, "no", "i")]
    small_audit(tmp_path, rows, verdicts=verdicts_of("yyyyyyuuuu" + "n" * 10))
    judge = reported(tmp_path)["judges"][1]
    assert judge["against_people"]["agreement"]["value"] == 1
    assert judge["against_people"]["num_unscored"] == 4
    assert judge["unscored"]["value"] == pytest.approx(0.2)
    assert judge["unscored_reasons"] == {"off_menu": 4}


def test_fine_rows_that_were_lost_for_want_of_a_verdict_are_counted(tmp_path: Path) -> None:
    small_audit(
        tmp_path,
        [*KEPT_AND_REJECTED, *rows_of(3, "unscored", "s"), *rows_of(1, "unscored", "i")],
    )
    content = reported(tmp_path)
    assert content["consequences"]["unscored"]["wrong"]["value"] == pytest.approx(0.75)
    # They are rows of the population, but no part of the judge's share of Yes.
    assert content["consequences"]["prevalence"]["naive"] == pytest.approx(0.75)
    assert content["judges"][0]["against_people"]["num_rows"] == 40


def test_ties_and_doubts_are_left_out_and_said(tmp_path: Path) -> None:
    rows = [
        *(Row("yes", {"ada": "s", "ben": "s"}) for _ in range(6)),
        *(Row("yes", {"ada": "s", "ben": "i"}) for _ in range(2)),
        Row("yes", {"ada": "u"}),
        Row("no", {"ada": "i", "ben": "u"}),
    ]
    small_audit(tmp_path, rows)
    content = reported(tmp_path)
    assert content["rows"]["num_reference"] == 7
    assert (content["rows"]["num_tied"], content["rows"]["num_only_unsure"]) == (2, 1)
    assert any("2 ties between people, 1 unsure only" in note for note in content["notes"])


def test_a_judge_is_held_against_one_person_on_the_rows_of_the_ceiling(tmp_path: Path) -> None:
    rows = [
        *(Row("yes", {"ada": "s", "ben": "s"}) for _ in range(6)),
        *(Row("yes", {"ada": "s", "ben": "i"}) for _ in range(3)),
        Row("yes", {"ada": "i", "ben": "i"}),
        Row("yes", {"ada": "i"}),  # one label: no row of the ceiling
    ]
    small_audit(tmp_path, rows)
    content = reported(tmp_path)
    assert content["people"]["ceiling"]["num_rows"] == 10
    assert content["people"]["ceiling"]["agreement"]["value"] == pytest.approx(7 / 10)
    # Six rows with both, three with one of two, one with none.
    assert content["judges"][0]["with_one_person"]["value"] == pytest.approx(7.5 / 10)


def test_without_labels_the_report_says_that_nothing_is_known(tmp_path: Path) -> None:
    small_audit(tmp_path, rows_of(4, "yes", ""), verdicts=verdicts_of("yyyn"))
    content = reported(tmp_path)
    assert content["judges"][0]["against_people"]["agreement"]["value"] is None
    assert content["consequences"]["prevalence"] is None
    assert "No row is labelled yet" in content["notes"][0]
    assert "too few labels to say (0 labelled rows of 0 videos)" in content["said"]


def test_few_labels_are_called_too_few(tmp_path: Path) -> None:
    one_video = rows_of(30, "yes", "s", video="clips/one.mp4")
    small_audit(tmp_path, one_video)
    content = reported(tmp_path)
    assert content["judges"][0]["is_too_few"] is True
    assert "too few labels to say (30 labelled rows of 1 video)" in content["said"]


def test_the_worst_slice_comes_first_and_small_ones_last(tmp_path: Path) -> None:
    rows = [
        *rows_of(22, "yes", "s", data_source="good"),
        *rows_of(18, "yes", "s", data_source="poor"),
        *rows_of(6, "yes", "i", data_source="poor"),
        *rows_of(3, "yes", "i", data_source="tiny"),
    ]
    small_audit(tmp_path, rows)
    slices = [one for one in reported(tmp_path)["slices"] if one["kind"] == "data source"]
    assert [one["value"] for one in slices] == ["poor", "good", "tiny"]
    assert [one["is_too_few"] for one in slices] == [False, False, True]
    assert slices[0]["agreement"]["value"] == pytest.approx(0.75)


def test_probes_that_were_let_through(tmp_path: Path) -> None:
    rows = [*rows_of(6, "yes", "s", weight=3), *rows_of(2, "no", "i")]
    small_audit(
        tmp_path,
        rows,
        verdicts=[
            *verdicts_of("yynnnnuu", probe="argues", probe_text="Hence: B."),
            *verdicts_of("nnnnnnnn", probe="empty"),
        ],
    )
    argues, empty = reported(tmp_path)["probes"]
    assert (argues["probe"], argues["num_passed"], argues["num_unscored"]) == ("argues", 2, 2)
    assert argues["passed"]["value"] == pytest.approx(1 / 3)
    assert empty["passed"]["value"] == 0
    assert 0.05 < empty["passed"]["high"] < 0.4  # none of eight is no proof of none


def test_stability_counts_words_that_changed(tmp_path: Path) -> None:
    small_audit(
        tmp_path,
        rows_of(10, "yes", "s"),
        verdicts=[
            *verdicts_of("yyyyynnnnn"),
            *verdicts_of("yyyyynnnny", repeat=1),
            *verdicts_of("uyyyynnnn.", repeat=2),
        ],
    )
    (one,) = reported(tmp_path)["stability"]
    assert (one["num_repeats"], one["num_rows"], one["num_changed"]) == (3, 10, 2)
    assert one["unchanged"]["value"] == pytest.approx(0.8)


def test_other_ways_of_asking_are_compared_on_the_same_rows(tmp_path: Path) -> None:
    small_audit(
        tmp_path,
        [*rows_of(5, "yes", "s"), *rows_of(5, "yes", "i")],
        verdicts=[
            *verdicts_of("yyyyynnnnn"),
            *verdicts_of("yyyy....ny", permutation=1),
            *verdicts_of("nnnyynnnnn", variant="sufficiency-short"),
        ],
    )
    order, short = reported(tmp_path)["changes"]
    assert (order["what"], order["num_rows"]) == ("options in another order (1)", 6)
    assert order["num_changed"] == 1
    # On these six rows the usual way is right in all, the other way in five.
    assert order["comparison"]["only_first_right"] == 1
    assert short["what"] == "prompt sufficiency-short instead of sufficiency"
    assert (short["num_changed"], short["comparison"]["only_first_right"]) == (3, 3)


def test_two_judges_are_compared_where_both_scored(tmp_path: Path) -> None:
    small_audit(
        tmp_path,
        rows_of(12, "yes", "s"),
        verdicts=[
            *verdicts_of("yyyyyyyyynnu", judge="claude:one"),
            *verdicts_of("nnnnyyyyyyny", judge="openai:two@http://localhost:1"),
        ],
    )
    pair = reported(tmp_path)["pairs"][2]
    seen = pair["comparison"]
    assert pair["first"] == "claude:one"
    assert (seen["num_rows"], seen["both_right"], seen["neither_right"]) == (11, 5, 1)
    assert (seen["only_first_right"], seen["only_second_right"]) == (4, 1)
    assert seen["exact_p"] == pytest.approx(0.375)  # 2 * (1 + 5) / 2^5


def test_two_judges_differ_in_sensitivity_and_in_specificity(tmp_path: Path) -> None:
    """Of eight sufficient rows the first finds all, the second six; of four others the first finds
    one, the second all.
    """
    small_audit(
        tmp_path,
        [*rows_of(8, "yes", "s", weight=9), *rows_of(4, "yes", "i", weight=9)],
        verdicts=[
            *verdicts_of("yyyyyyyyyyyn", judge="claude:one", cost_usd=0.001),
            *verdicts_of("yyyyyynnnnnn", judge="claude:one", variant="answer", cost_usd=0.008),
        ],
    )
    content = reported(tmp_path)
    names = ["claude:one", "claude:one [answer]"]
    (pair,) = [one for one in content["pairs"] if {one["first"], one["second"]} == set(names)]
    sign = 1 if pair["first"] == names[0] else -1
    sensitivity, specificity = pair["sensitivity"], pair["specificity"]
    assert (sensitivity["num_rows"], specificity["num_rows"]) == (8, 4)
    assert sensitivity["difference"]["value"] == pytest.approx(sign * (1 - 6 / 8))
    assert specificity["difference"]["value"] == pytest.approx(sign * (1 / 4 - 1))
    assert sensitivity["difference"]["low"] < sensitivity["difference"]["high"]
    found = {judge["name"]: judge for judge in content["judges"]}
    for name, recall, spared, dollars in zip(names, (1, 0.75), (0.25, 1), (1, 8), strict=True):
        assert found[name]["against_people"]["recall"]["value"] == pytest.approx(recall)
        assert found[name]["against_people"]["specificity"]["value"] == pytest.approx(spared)
        assert found[name]["usd_per_1000"] == pytest.approx(dollars)


def test_cost_is_per_thousand_and_unknown_stays_unknown(tmp_path: Path) -> None:
    small_audit(
        tmp_path,
        rows_of(2, "yes", "s"),
        verdicts=[
            *verdicts_of("yn", judge="claude:one", cost_usd=0.002, seconds=1.5),
            *verdicts_of("y.", judge="local:two", cost_usd=0.001, seconds=0.5),
            *verdicts_of(".n", judge="local:two", cost_usd=None, seconds=0.5),
        ],
    )
    _, one, two = reported(tmp_path)["judges"]
    assert one["usd_per_1000"] == pytest.approx(2)
    assert one["seconds_per_1000"] == pytest.approx(1500)
    assert (two["usd_per_1000"], two["seconds_per_1000"]) == (None, 500)


def test_verdicts_of_several_prompts_are_not_mixed_silently(tmp_path: Path) -> None:
    words = [*verdicts_of("yy.."), *verdicts_of("..nn", prompt_id="prompt-2")]
    small_audit(tmp_path, rows_of(4, "yes", "s"), verdicts=words)
    content = reported(tmp_path)
    assert content["judges"][1]["prompt_ids"] == {"prompt-1": 2, "prompt-2": 2}
    assert any("come from 2 prompts (prompt-1, prompt-2)" in note for note in content["notes"])


@pytest.mark.heavy
def test_labels_needed_know_that_the_population_is_finite(tmp_path: Path) -> None:
    assert in_finite_population(100, 100) == pytest.approx(50)
    small_audit(tmp_path, [*rows_of(30, "yes", "s"), *rows_of(10, "yes", "i"), *KEPT_AND_REJECTED])
    needed = reported(tmp_path, widths=(0.3, 0.02))["consequences"]["labels_needed"]
    wide, narrow = (one for one in needed if one["statistic"] == "agreement")
    assert 5 < wide["num_labels"] < 40
    assert 80 < narrow["num_labels"] <= 120  # of the 120 rows that there are


def test_the_same_audit_gives_the_same_numbers(tmp_path: Path) -> None:
    small_audit(tmp_path, KEPT_AND_REJECTED)
    assert reported(tmp_path) == reported(tmp_path)
