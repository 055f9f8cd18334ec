"""The trace grammar: what is well formed parses, everything else is refused with its place."""

import pickle
import time

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from schemas.traces import (
    TEMPLATES,
    Trace,
    TraceError,
    TraceTemplate,
    parse_trace,
    render_trace,
    segment_spans,
)

P2R = TEMPLATES["p2r"]
GOOD = "<observation>A red ball falls.</observation> <think>So it fell.</think><answer>B</answer>"

templates = st.sampled_from(sorted(TEMPLATES.values(), key=lambda template: template.name))
# Pieces that provoke a parser: other tags, tags in other case, half tags, angle brackets, newlines.
pieces = st.one_of(
    st.text(max_size=12),
    st.sampled_from(
        [
            "<b>",
            "</b>",
            "<THINK>",
            "</Answer>",
            "<think",
            "think>",
            "<",
            ">",
            "</",
            "< think>",
            "\n",
        ]
    ),
)


@st.composite
def inner_texts(draw: st.DrawFn, template: TraceTemplate) -> str:
    text = "".join(draw(st.lists(pieces, max_size=6)))
    assume(text.strip() and not template.tag_pattern.search(text))
    return text


@st.composite
def traces(draw: st.DrawFn) -> Trace:
    template = draw(templates)
    return Trace(template, tuple(draw(inner_texts(template)) for _ in template.segments))


def fault(text: str, template: TraceTemplate = P2R) -> tuple[str, int]:
    with pytest.raises(TraceError) as caught:
        parse_trace(text, template)
    return caught.value.reason, caught.value.position


@given(traces())
def test_render_then_parse_is_identity(trace: Trace) -> None:
    assert parse_trace(render_trace(trace), trace.template) == trace


@given(traces(), st.text(alphabet=" \n\t", max_size=4), st.text(alphabet=" \n\t", max_size=4))
def test_white_space_around_segments_changes_nothing(
    trace: Trace, before: str, between: str
) -> None:
    text = before + between.join(_blocks(trace)) + between
    assert parse_trace(text, trace.template) == trace


def _blocks(trace: Trace) -> list[str]:
    return [
        f"<{segment.tag}>{text}</{segment.tag}>"
        for segment, text in zip(trace.template.segments, trace.texts, strict=True)
    ]


@given(traces(), st.data())
def test_every_corruption_is_refused_with_a_place_inside_the_text(
    trace: Trace, data: st.DataObject
) -> None:
    tags = [tag for s in trace.template.segments for tag in (s.opening, s.closing)]
    blocks = _blocks(trace)
    kind = data.draw(
        st.sampled_from(
            ["drop tag", "add tag", "drop block", "repeat block", "swap", "nest", "stray", "empty"]
        )
    )
    i = data.draw(st.integers(0, len(blocks) - 1))
    j = data.draw(st.integers(0, len(blocks) - 1).filter(lambda other: other != i))
    text = "".join(blocks)
    if kind == "drop tag":
        text = text.replace(data.draw(st.sampled_from(tags)), "", 1)
    elif kind == "add tag":
        at = data.draw(st.integers(0, len(text)))
        text = text[:at] + data.draw(st.sampled_from(tags)) + text[at:]
        # An added tag may complete half a tag: only a text that is malformed by count is asked for.
        assume(any(text.count(tag) != 1 for tag in tags))
    elif kind == "drop block":
        text = "".join(blocks[:i] + blocks[i + 1 :])
    elif kind == "repeat block":
        text = "".join([*blocks, blocks[i]])
    elif kind == "swap":
        blocks[i], blocks[j] = blocks[j], blocks[i]
        text = "".join(blocks)
    elif kind == "nest":
        nested = blocks[i].replace("</", blocks[j] + "</", 1)
        text = "".join(nested if k == i else b for k, b in enumerate(blocks) if k != j)
    elif kind == "stray":
        word = data.draw(st.sampled_from(["x", "Sure!", "<b>", "\u200b", "0", ".", "<|im_end|>"]))
        k = data.draw(st.integers(0, len(blocks)))
        text = "".join([*blocks[:k], word, *blocks[k:]])
    else:
        blocks[i] = blocks[i].replace(trace.texts[i], data.draw(st.sampled_from(["", " \n"])), 1)
        text = "".join(blocks)
    with pytest.raises(TraceError) as caught:
        parse_trace(text, trace.template)
    assert 0 <= caught.value.position <= len(text)
    assert caught.value.reason in str(caught.value)
    assert f"at character {caught.value.position}" in str(caught.value)


@given(traces())
def test_a_cut_text_is_refused_wherever_it_is_cut(trace: Trace) -> None:
    text = render_trace(trace)
    for end in range(len(text)):
        with pytest.raises(TraceError):
            parse_trace(text[:end], trace.template)


def test_texts_are_kept_verbatim_and_get_strips() -> None:
    trace = parse_trace(
        "\n<observation> a\n</observation><think>b</think>\n<answer> C </answer>\n", P2R
    )
    assert trace.texts == (" a\n", "b", " C ")
    assert trace.get("answer") == "C"
    with pytest.raises(KeyError, match="observation, think, answer, not 'time'"):
        trace.get("time")


def test_rendered_p2r_has_the_published_white_space() -> None:
    assert render_trace(Trace(P2R, ("o", "t", "a"))) == (
        "<observation>o</observation> <think>t</think><answer>a</answer>"
    )


@pytest.mark.parametrize(
    ("text", "reason", "position"),
    [
        ("", "missing_tag", 0),
        (" \n", "missing_tag", 2),
        ("The answer is B.", "stray_text", 0),
        ("Sure! " + GOOD, "stray_text", 0),
        (GOOD + " Hope that helps", "stray_text", len(GOOD) + 1),
        (GOOD + "\n<|im_end|>", "stray_text", len(GOOD) + 1),
        (GOOD.replace("> <think>", "> so <think>"), "stray_text", 45),
        (GOOD + "<answer>B</answer>", "duplicate_tag", len(GOOD)),
        (GOOD + "</answer>", "duplicate_tag", len(GOOD)),
        (GOOD.replace(" <think>", "</observation><think>"), "duplicate_tag", 44),
        (GOOD.replace("<observation>", ""), "stray_text", 0),
        ("</observation>" + GOOD, "unopened_tag", 0),
        ("<think>t</think><answer>a</answer>", "missing_tag", 0),
        ("<think>t</think><observation>o</observation><answer>a</answer>", "wrong_order", 0),
        (GOOD.replace("</observation>", ""), "unclosed_tag", 0),
        (GOOD.replace("</answer>", ""), "unclosed_tag", 71),
        (GOOD[:45], "missing_tag", 45),
        (GOOD.replace("ball", "<think>ball"), "nested_tag", 19),
        (GOOD.replace("ball", "<observation>ball"), "nested_tag", 19),
        (GOOD.replace("it", "</answer>"), "nested_tag", 55),
        (GOOD.replace("A red ball falls.", " \t"), "empty_segment", 13),
        (GOOD.replace("B", ""), "empty_segment", 79),
        (GOOD.replace("think>", "THINK>"), "stray_text", 45),
        (GOOD.replace("<think>", "<think >"), "stray_text", 45),
    ],
)
def test_each_fault_has_its_reason_and_place(text: str, reason: str, position: int) -> None:
    assert fault(text) == (reason, position)


def test_tags_of_other_names_and_other_case_are_ordinary_text() -> None:
    text = GOOD.replace("red", "<b>red</b> <time>0 to 1</time> <ANSWER>")
    assert "<b>red</b> <time>" in parse_trace(text, P2R).get("observation")


def test_the_error_says_what_was_found() -> None:
    with pytest.raises(TraceError, match="stray_text at character 0: 'Sure!' stands outside"):
        parse_trace("Sure!" + GOOD, P2R)


def test_a_trace_error_survives_pickling() -> None:
    with pytest.raises(TraceError) as caught:
        parse_trace("x", P2R)
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (copy.reason, copy.position, str(copy)) == ("stray_text", 0, str(caught.value))


def test_render_refuses_a_text_that_would_not_parse_back() -> None:
    with pytest.raises(TraceError, match="nested_tag"):
        render_trace(Trace(P2R, ("o", "t <answer>A</answer>", "B")))
    with pytest.raises(TraceError, match="empty_segment"):
        render_trace(Trace(P2R, ("o", "", "B")))


@pytest.mark.parametrize("unit", ["<think>", "</think>", "<", "a", "<observation>x</observation>"])
@pytest.mark.parametrize("head", ["", "<observation>", "<observation>o</observation><think>"])
def test_a_megabyte_is_refused_in_linear_time(head: str, unit: str) -> None:
    text = head + unit * (1_000_000 // len(unit))
    started = time.process_time()
    with pytest.raises(TraceError):
        parse_trace(text, P2R)
    segment_spans(text, P2R)
    assert time.process_time() - started < 2.0  # quadratic work would take minutes


@given(traces())
def test_spans_of_a_trace_are_its_segments(trace: Trace) -> None:
    text = render_trace(trace)
    spans = segment_spans(text, trace.template)
    assert tuple(text[s.inner_start : s.inner_end] for s in spans) == trace.texts
    assert [text[s.start : s.end] for s in spans] == _blocks(trace)
    assert [(s.tag, s.role) for s in spans] == [(s.tag, s.role) for s in trace.template.segments]


@given(st.lists(pieces | st.sampled_from(["<think>", "</think>", "<answer>", "</answer>"])))
def test_all_spans_and_no_stray_text_means_well_formed(parts: list[str]) -> None:
    template = TEMPLATES["think-answer"]
    text = "".join(parts)
    spans = segment_spans(text, template)
    outside = text
    for span in reversed(spans):
        outside = outside[: span.start] + outside[span.end :]
    if len(spans) == 2 and not outside.strip():
        parse_trace(text, template)
    else:
        with pytest.raises(TraceError):
            parse_trace(text, template)


@pytest.mark.parametrize(
    ("text", "tags"),
    [
        (GOOD, ["observation", "think", "answer"]),
        # Stray text is not looked at.
        ("Sure! " + GOOD + " bye", ["observation", "think", "answer"]),
        (GOOD[:-9], ["observation", "think"]),  # cut inside the answer
        (GOOD[:60], ["observation"]),  # cut inside the think segment
        (GOOD[:20], []),
        (GOOD.replace("</observation>", ""), ["think", "answer"]),
        (GOOD.replace("A red ball falls.", " "), ["think", "answer"]),
        (GOOD.replace("B", "<think>"), ["observation"]),
        # Two answers, a tag inside the observation, and think is no longer before the answers.
        (GOOD.replace("ball", "<answer>"), []),
        ("<think>t</think><observation>o</observation><answer>a</answer>", ["answer"]),
        ("<observation>a <think>t</think></observation><answer>a</answer>", ["answer"]),
        ("</answer> <answer>", []),
    ],
)
def test_spans_are_found_per_segment(text: str, tags: list[str]) -> None:
    assert [span.tag for span in segment_spans(text, P2R)] == tags
