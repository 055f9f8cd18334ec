"""Judges against people, people among each other, judges among each other: the tables."""

from collections.abc import Sequence

from judges.agreement import Agreement, Confusion
from judges.audits.facts import AuditFacts
from judges.audits.kinds import AuditKind
from judges.audits.section_parts import Section, Table
from judges.audits.wording import coefficient, count, p_value, percent, points

_Names = tuple[str, ...]


def against_people_section(facts: AuditFacts) -> Section | None:
    """Agreement and its coefficients; None without a label."""
    judges = [judge for judge in facts.judges if judge.against_people.num_rows]
    if not judges:
        return None
    agreements = [((judge.name,), judge.against_people) for judge in judges]
    return Section(
        "judges",
        "Judges against people",
        (
            "Intervals are 95 %, from resampling videos, weighted to the whole population. Kappa "
            "falls when nearly all rows have one answer, AC1 does not: read both with the "
            "prevalence.",
        ),
        (
            _rates(("judge",), agreements),
            _coefficients(("judge",), agreements),
            _confusions(agreements, facts.kind),
        ),
    )


def people_section(facts: AuditFacts) -> Section | None:
    """The ceiling; None with one annotator or none."""
    ceiling = facts.people.ceiling
    if ceiling is None:
        return None
    if not ceiling.num_rows:
        return Section(
            "people", "People among each other", ("No row was labelled by two of them.",)
        )
    pairs = [
        ((pair.first, pair.second), pair.agreement)
        for pair in facts.people.pairs
        if pair.agreement.num_rows
    ]
    return Section(
        "people",
        "People among each other",
        (
            f"{count(ceiling.num_annotators, 'annotator')}, {count(ceiling.num_rows, 'row')} with "
            f"two labels or more: agreement {percent(ceiling.agreement)}, AC1 "
            f"{coefficient(ceiling.ac1)}, Krippendorff's alpha {coefficient(ceiling.alpha)}.",
        ),
        (
            _coefficients(("first", "second"), pairs),
            Table(
                ("judge", "agrees with one person, on the same rows"),
                tuple((judge.name, percent(judge.with_one_person)) for judge in facts.judges),
            ),
        ),
    )


def between_judges_section(facts: AuditFacts) -> Section | None:
    """How judges agree with each other, and which is right more often; None with one judge."""
    if not facts.pairs:
        return None
    sentences = [
        "Who is right more often is asked on the rows that both scored and people decided "
        "(difference: the first judge's agreement less the second's). The exact test takes rows as "
        "independent, the other one videos."
    ]
    if facts.all_judges is not None:
        among = facts.all_judges
        sentences.append(
            f"All {among.num_annotators} judges among each other: agreement "
            f"{percent(among.agreement)}, AC1 {coefficient(among.ac1)}, Krippendorff's alpha "
            f"{coefficient(among.alpha)}."
        )
    names = [((pair.first, pair.second), pair.agreement) for pair in facts.pairs]
    rows = []
    for pair, (name, _) in zip(facts.pairs, names, strict=True):
        seen = pair.comparison
        if seen.num_rows:
            rows.append(
                (
                    *name,
                    f"{seen.num_rows:,}",
                    f"{seen.only_first_right:,}",
                    f"{seen.only_second_right:,}",
                    points(seen.difference),
                    p_value(seen.exact_p),
                    p_value(seen.clustered_p),
                )
            )
    columns = (
        "first", "second", "rows", "only first right", "only second right", "difference",
        "McNemar, exact p", "p by video",
    )  # fmt: skip
    return Section(
        "pairs",
        "Judges among each other",
        tuple(sentences),
        (_coefficients(("first", "second"), names), Table(columns, tuple(rows), num_texts=2)),
    )


def _rates(who: _Names, found: Sequence[tuple[_Names, Agreement]]) -> Table:
    return Table(
        (*who, "rows", "videos", "agreement", "precision", "recall", "F1"),
        tuple(
            (
                *name,
                f"{seen.num_rows:,}",
                f"{seen.num_videos:,}",
                *(percent(one) for one in (seen.agreement, seen.precision, seen.recall, seen.f1)),
            )
            for name, seen in found
        ),
    )


def _coefficients(who: _Names, found: Sequence[tuple[_Names, Agreement]]) -> Table:
    whose = ("first's yes", "second's yes") if len(who) == 2 else ("its yes", "people's yes")
    return Table(
        (*who, "rows", "Cohen's kappa", "Gwet's AC1", "Krippendorff's alpha", *whose),
        tuple(
            (
                *name,
                f"{seen.num_rows:,}",
                *(coefficient(one) for one in (seen.kappa, seen.ac1, seen.alpha)),
                percent(seen.judged_yes),
                percent(seen.prevalence),
            )
            for name, seen in found
        ),
        num_texts=len(who),
    )


def _confusions(found: Sequence[tuple[_Names, Agreement]], kind: AuditKind) -> Table:
    """Rows as counted, and the share of the population that they stand for."""

    def cells(counted: Confusion, weighted: Confusion) -> tuple[str, ...]:
        total = sum(vars(weighted).values())
        return tuple(
            f"{vars(counted)[name]:,.0f} = {100 * vars(weighted)[name] / total:.1f} %"
            for name in ("yes_yes", "yes_no", "no_yes", "no_no")
        )

    return Table(
        (
            "confusion: rows = share of the population", f"yes, {kind.yes}", f"yes, {kind.no}",
            f"no, {kind.yes}", f"no, {kind.no}", "unscored", "no label",
        ),
        tuple(
            (
                *name,
                *cells(seen.rows, seen.weights),
                f"{seen.num_unscored:,}",
                f"{seen.num_unlabelled:,}",
            )
            for name, seen in found
        ),
    )  # fmt: skip
