"""The labelling page's Gradio blocks: a row, its buttons, and what each key does.

A request names the annotator, the row and the reason that stand on the page in front of the person
(`page.js` reads them there), so a page that was open while the server was stopped and started
again, or two pages at once, can only ever label what was seen.
"""

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from judges.audits.label.queue import MAX_REASON_CHARACTERS, LabelBook, Place, annotator_name
from judges.audits.label.views import card_html, start_html

if TYPE_CHECKING:
    import gradio

_TITLE = "Judge audit: labels"
# Runs as soon as the page stands, which may be before `page.js` has loaded.
_NAME_IN_ADDRESS = "() => [new URLSearchParams(location.search).get('annotator')]"


def import_gradio() -> Any:
    """Gradio with its telemetry off. Raises ImportError where the extra `ui` is not installed."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # asked by code that has no option for it
    import gradio

    return gradio


def labelling_blocks(book: LabelBook, default_annotator: str | None) -> "gradio.Blocks":
    """The page. `default_annotator` is who labels where the address names nobody."""
    gr = import_gradio()

    def begin(name: str | None) -> list[Any]:
        given = (default_annotator or "") if name is None else name
        complaint = ""
        if given.strip():
            try:
                place = book.place(annotator_name(given))
            except ValueError as error:
                complaint = f"{error}."
            else:
                return [gr.Column(visible=False), "", gr.Column(visible=True), *shown(place)]
        return [
            gr.Column(visible=True),
            start_html(book, complaint),
            gr.Column(visible=False),
            "",
            "",
        ]

    def shown(place: Place) -> list[Any]:
        return [card_html(book, place), place.earlier.reason if place.earlier else ""]

    def put(label: str) -> Callable[[str, str, str], list[Any]]:
        def put_label(name: str, item_id: str, reason: str) -> list[Any]:
            return answered(lambda: book.put(name, item_id, label, reason))

        return put_label

    def take_back(name: str, item_id: str, _: str) -> list[Any]:
        return answered(lambda: book.take_back(name, item_id))

    def answered(step: Callable[[], Place]) -> list[Any]:
        try:
            return shown(step())
        except ValueError as error:
            raise gr.Error(f"Not saved: {error}", print_exception=False) from error

    page: gradio.Blocks = gr.Blocks(title=_TITLE, analytics_enabled=False, fill_width=True)
    with page:
        with gr.Column(visible=False, elem_id="p2r-start") as start:
            welcome = gr.HTML(apply_default_css=False)
            with gr.Row():
                name = gr.Textbox(
                    label="Your name", elem_id="p2r-name", max_lines=1, scale=3, autofocus=True
                )
                go = gr.Button("Begin", variant="primary", elem_id="p2r-begin", scale=1)
        with gr.Column(visible=False, elem_id="p2r-work") as work:
            card = gr.HTML(apply_default_css=False)
            with gr.Row(elem_id="p2r-bar"):
                reason = gr.Textbox(
                    show_label=False,
                    container=False,
                    placeholder=book.kind.text_hint,
                    elem_id="p2r-reason",
                    max_lines=1,
                    max_length=MAX_REASON_CHARACTERS,
                    scale=5,
                )
                buttons = {
                    label: gr.Button(
                        f"{label.capitalize()} · {book.kind.keys[label]}",
                        elem_id=f"p2r-{label}",
                        scale=2,
                    )
                    for label in book.kind.labels
                }
                undo = gr.Button("Undo · Z", elem_id="p2r-undo", scale=1)
        # What the page shows is sent along; these two only give it a place in the request.
        who = gr.Textbox(visible=False)
        item = gr.Textbox(visible=False)

        quick: dict[str, Any] = {
            "queue": False,
            "show_progress": "hidden",
            "api_visibility": "private",
        }
        everything = [start, welcome, work, card, reason]
        page.load(begin, [name], everything, js=_NAME_IN_ADDRESS, **quick)
        for event in (go.click, name.submit):
            event(begin, [name], everything, js="(name) => [p2r.rememberName(name)]", **quick)
        for label, button in buttons.items():
            button.click(
                put(label), [who, item, reason], [card, reason], js="() => p2r.onPage()", **quick
            )
        undo.click(
            take_back, [who, item, reason], [card, reason], js="() => p2r.lastOnPage()", **quick
        )
    return page
