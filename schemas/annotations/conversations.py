"""Chats about videos: what trainers of language models read, as questions with a gold answer.

LLaVA-Video-178K, LLaMA-Factory (messages, ShareGPT, Alpaca), ms-swift, TRL, verl and NeMo Gym. One
rule for all: the user's text without its `<video>` and `<image>` marks is the question, the
assistant's text (or the layout's own gold field) is the gold answer, taken out of `<answer>` tags
where it has them. Options on lines of their own make it multiple choice; a gold answer that is a
letter without any option is refused. System messages are left out: our own prompt takes their
place. A dialogue of several turns is no single question and is refused, but for LLaVA-Video-178K,
whose turns are questions about one video.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from schemas.annotations.fields import (
    FieldError,
    Fields,
    Record,
    list_field,
    shown,
    strings,
    text_field,
)
from schemas.annotations.golds import (
    answer_options,
    any_gold,
    open_type,
    span_fields,
)
from schemas.annotations.inline_options import inline_options, looks_like_a_letter
from schemas.questions import ProblemType

_MARKS = re.compile(r"<(video|image)>")
_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
_USER = frozenset({"user", "human"})
_ASSISTANT = frozenset({"assistant", "gpt", "bot"})
_MEDIA_FIELDS = {"video": ("videos", "video"), "image": ("images", "image")}
_PATH_KEYS = ("path", "video", "image", "video_url", "image_url", "url")

Medium = tuple[Any, ...]  # kind, path, and start and end of a clip


def question_fields(text: str, gold: str, media: Sequence[Medium], *, field: str) -> Fields:
    """The question that a user's text and its gold answer make. `field` is the gold answer's."""
    problem = _MARKS.sub("", text).strip()
    answers = {answer.strip() for answer in _ANSWER.findall(gold)}
    if len(answers) > 1:
        raise FieldError(field, f"holds {len(answers)} different answers in tags")
    gold = answers.pop() if answers else gold.strip()
    if not problem or not gold:
        raise FieldError(field, "the question or its answer is empty")
    if not media:
        raise FieldError("videos", "the record names no video and no image")
    inline = inline_options(problem)
    letter = None if inline is None else inline.letter_of(gold)
    fields: Fields = {"problem": problem, "solution": gold, "media": tuple(media)}
    if inline is not None and letter is not None:
        return fields | {
            "problem": inline.problem,
            "options": inline.lines,
            "solution": letter,
            "problem_type": ProblemType.MULTIPLE_CHOICE,
        }
    if looks_like_a_letter(gold):
        found = "no options" if inline is None else f"{len(inline.texts)} other options"
        raise FieldError(
            field, f"{shown(gold)} looks like an option, but the question holds {found}"
        )
    return fields | {"problem_type": open_type(gold)}


def llava_questions(record: Any) -> Iterator[Record]:
    """One record for each turn of a LLaVA-Video-178K conversation."""
    turns = list(_turns(_messages(record, "conversations")))
    for number, (asked, answered) in enumerate(turns):
        name = text_field(record, "id", default="")
        yield {
            "asked": asked,
            "answered": answered,
            "video": record.get("video"),
            "id": name if len(turns) == 1 else f"{name}_{number}",
            "data_source": record.get("data_source"),
        }


def llava(record: Record) -> Fields:
    """One turn. `<image>` stands for the video's place."""
    media = (("video", text_field(record, "video")),)
    asked, answered = text_field(record, "asked"), text_field(record, "answered")
    return question_fields(asked, answered, media, field="conversations") | {
        "data_source": text_field(record, "data_source", default="LLaVA-Video-178K"),
        "problem_id": text_field(record, "id", default=""),
    }


def chat(record: Record) -> Fields:
    """A user's message and the gold answer to it: ms-swift, TRL, LLaMA-Factory and ShareGPT.

    `messages` or `conversations`; `prompt` with `completion`; or ms-swift's older `query` and
    `response`. A field `solution` (RL) is the gold answer, whatever the assistant says.
    """
    if "query" in record:
        if record.get("history"):
            raise FieldError("history", "a dialogue of several turns is no single question")
        field, parts = "response", list[Mapping[str, Any]]()
        asked, answered = text_field(record, "query"), text_field(record, field, default="")
    else:
        names = ("messages", "conversations", "prompt")
        field = next((name for name in names if record.get(name)), "messages")
        messages = _messages(record, field)
        if field == "prompt" and record.get("completion"):
            messages = [*messages, *_messages(record, "completion", role="assistant")]
        asked, answered, parts = _single_turn(messages, field)
    if record.get("solution") not in (None, ""):
        field, answered = "solution", text_field(record, "solution")
    if not answered:
        raise FieldError(field, "holds no answer of the assistant, and there is no solution")
    media = _media(record, asked, parts)
    return question_fields(
        asked, text_field({field: answered}, field), media, field=field
    ) | _named(record)


class LlamaFactory:
    """LLaMA-Factory's files: fields and roles as `dataset_info.json` beside the file names them."""

    def __init__(self, info: Mapping[str, Any]) -> None:
        columns, tags = info.get("columns"), info.get("tags")
        self._columns = dict(columns) if isinstance(columns, dict) else {}
        self._tags = dict(tags) if isinstance(tags, dict) else {}

    def fields(self, record: Record) -> Fields:
        """A record of messages, or of Alpaca's instruction, input and output."""
        renamed = {ours: record.get(theirs) for ours, theirs in self._columns.items()}
        record = dict(record) | {key: value for key, value in renamed.items() if value is not None}
        for ours, theirs in (("instruction", "prompt"), ("input", "query"), ("output", "response")):
            if theirs in self._columns:
                record[ours] = record.pop(theirs, None)
        if "instruction" in record:
            parts = (text_field(record, name, default="") for name in ("instruction", "input"))
            asked = "\n".join(part for part in parts if part)
            media = _media(record, asked, [])
            output = text_field(record, "output")
            return question_fields(asked, output, media, field="output") | _named(record)
        field = "messages" if record.get("messages") else "conversations"
        record[field] = [self._message(message) for message in _messages(record, field)]
        return chat({key: record[key] for key in record if key != "query"})

    def _message(self, message: Mapping[str, Any]) -> dict[str, Any]:
        tags = self._tags
        role = message.get(tags["role_tag"]) if "role_tag" in tags else _role(message)
        content = message.get(tags["content_tag"]) if "content_tag" in tags else _content(message)
        names = {
            tags.get("user_tag"): "user",
            tags.get("assistant_tag"): "assistant",
            tags.get("system_tag"): "system",
        }
        if not isinstance(role, str):
            role = shown(role)
        return {"role": names.get(role, role), "content": content}


def verl(record: Record) -> Fields:
    """verl: the prompt as a chat, the gold answer in `reward_model.ground_truth`."""
    model = record.get("reward_model")
    if not isinstance(model, dict):
        raise FieldError("reward_model", f"expected an object, got {shown(model)}")
    gold = text_field(model, "ground_truth")
    asked, _, parts = _single_turn(_messages(record, "prompt"), "prompt")
    return question_fields(
        asked, gold, _media(record, asked, parts), field="ground_truth"
    ) | _named(record)


def nemo_gym(record: Record) -> Fields:
    """NeMo Gym: input parts of a request, options beside it, `expected_answer` a letter or text."""
    request = record.get("responses_create_params")
    if not isinstance(request, dict):
        raise FieldError("responses_create_params", f"expected an object, got {shown(request)}")
    field = "input"
    asked, _, parts = _single_turn(_messages(request, field), field)
    gold, media = text_field(record, "expected_answer"), _media(record, asked, parts)
    listed = list_field(record, "options")
    if listed in (None, [], "", {}):
        return question_fields(asked, gold, media, field="expected_answer") | _named(record)
    if isinstance(listed, list) and all(isinstance(each, dict) for each in listed):
        listed = {
            letter: text
            for each in listed
            for letter, text in each.items()
            if text is not None  # a table fills in the letters of the others
        }
    texts = strings({"options": listed}, "options")
    options = answer_options(texts, "options")
    problem = _MARKS.sub("", asked).strip()
    inline = inline_options(problem)
    return {
        "problem": problem if inline is None else inline.problem,
        "options": options.lines,
        "solution": any_gold(options, texts, gold, "expected_answer"),
        "media": tuple(media),
        "problem_type": ProblemType.MULTIPLE_CHOICE,
    } | _named(record)


def is_chat_with_files(record: Record) -> bool:
    """Messages with plain texts, and the files beside them: LLaMA-Factory's and ms-swift's form."""
    has_files = isinstance(record.get("videos"), list) or isinstance(record.get("images"), list)
    messages = record.get("messages", record.get("conversations"))
    return has_files and (
        ("query" in record and "response" in record)
        or (isinstance(messages, list) and bool(messages) and not has_parts(messages))
    )


def has_parts(messages: Any) -> bool:
    """Whether a chat's contents are lists of typed parts, as TRL writes them."""
    return isinstance(messages, list) and any(
        isinstance(message, dict) and isinstance(message.get("content"), list)
        for message in messages
    )


def _named(record: Record) -> Fields:
    """Where a record says what it is called and where it comes from."""
    return {
        "data_source": _plain(record, "data_source"),
        "problem_id": _plain(record, "id"),
    }


def _plain(record: Record, field: str) -> str:
    return text_field(record, field, default="") if isinstance(record.get(field), str | int) else ""


def _messages(record: Record, field: str, *, role: str = "user") -> list[Mapping[str, Any]]:
    value = list_field(record, field) if _is_list_text(record.get(field)) else record.get(field)
    if isinstance(value, str):
        return [{"role": role, "content": value}]
    if not isinstance(value, list) or not all(isinstance(message, dict) for message in value):
        raise FieldError(field, f"expected a list of messages, got {shown(value)}")
    return value


def _is_list_text(value: Any) -> bool:
    return isinstance(value, str) and value.lstrip().startswith("[{")


def _role(message: Mapping[str, Any]) -> str:
    role = message.get("role", message.get("from"))
    return role if isinstance(role, str) else shown(role)


def _content(message: Mapping[str, Any]) -> Any:
    return message.get("content", message.get("value"))


def _turns(messages: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    """Each question with its answer. Raises FieldError where they do not follow each other."""
    said = [message for message in messages if _role(message) != "system"]
    if not said or len(said) % 2:
        raise FieldError("conversations", f"expected questions and answers, got {len(said)} texts")
    for asked, answered in zip(said[::2], said[1::2], strict=True):
        if _role(asked) not in _USER or _role(answered) not in _ASSISTANT:
            raise FieldError(
                "conversations",
                f"expected a question and its answer, got {_role(asked)!r} and {_role(answered)!r}",
            )
        yield _text_of(asked, "conversations")[0], _text_of(answered, "conversations")[0]


def _single_turn(
    messages: Sequence[Mapping[str, Any]], field: str
) -> tuple[str, str, list[Mapping[str, Any]]]:
    """The user's text, the assistant's (empty where there is none), and the media parts."""
    said = [message for message in messages if _role(message) != "system"]
    roles = [_role(message) for message in said]
    is_one_turn = len(said) in (1, 2) and roles[0] in _USER and set(roles[1:]) <= _ASSISTANT
    if not is_one_turn:
        raise FieldError(
            field, f"expected one question and its answer, got messages of {shown(roles)}"
        )
    asked, parts = _text_of(said[0], field)
    answered = _text_of(said[1], field)[0] if len(said) == 2 else ""
    return asked, answered, parts


def _text_of(message: Mapping[str, Any], field: str) -> tuple[str, list[Mapping[str, Any]]]:
    """The text of a message, media as marks in it, and its media parts in order."""
    content = _content(message)
    if isinstance(content, str):
        return content, []
    if not isinstance(content, list) or not all(isinstance(part, dict) for part in content):
        raise FieldError(field, f"expected texts or parts of messages, got {shown(content)}")
    texts: list[str] = []
    media: list[Mapping[str, Any]] = []
    for part in content:
        kind = str(part.get("type", "")).removeprefix("input_").removesuffix("_url")
        if kind in ("text", "output_text"):
            texts.append(text_field(part, "text", default=""))
        elif kind in _MEDIA_FIELDS:
            texts.append(f"<{kind}>")
            media.append({**part, "type": kind})
        else:
            raise FieldError(field, f"a part of type {shown(part.get('type'))} is none we read")
    return "\n".join(texts), media


def _media(record: Record, asked: str, parts: Sequence[Mapping[str, Any]]) -> list[Medium]:
    """The files, in the order of their marks in the text; without marks videos come first."""
    in_parts = [part for part in parts if any(part.get(key) for key in _PATH_KEYS)]
    if parts and len(in_parts) == len(parts):
        return [_medium(part["type"], part, "content") for part in parts]
    files: dict[str, list[Any]] = {kind: _files(record, kind) for kind in _MEDIA_FIELDS}
    marks = _MARKS.findall(asked)
    if not marks:
        marks = [kind for kind, found in files.items() for _ in found]
    for kind, found in files.items():
        if marks.count(kind) != len(found):
            raise FieldError(
                _MEDIA_FIELDS[kind][0],
                f"{len(found)} files, but {marks.count(kind)} <{kind}> in the question",
            )
    left = {kind: iter(found) for kind, found in files.items()}
    return [_medium(kind, next(left[kind]), _MEDIA_FIELDS[kind][0]) for kind in marks]


def _files(record: Record, kind: str) -> list[Any]:
    """What a record lists of one kind: paths, or objects that hold one."""
    for field in _MEDIA_FIELDS[kind]:
        value = record.get(field)
        if isinstance(value, str) and value.lstrip().startswith("["):
            value = list_field(record, field)
        if value not in (None, [], ""):
            return value if isinstance(value, list) else [value]
    return []


def _medium(kind: str, value: Any, field: str) -> Medium:
    span: tuple[float, ...] = ()
    if isinstance(value, dict):
        span = span_fields(value, "video_start", "video_end")
        if value.get("bytes"):
            raise FieldError(field, f"holds the {kind} itself: save it as a file and give its path")
        value = next((value[key] for key in _PATH_KEYS if value.get(key)), None)
        if isinstance(value, dict):  # {"type": "video_url", "video_url": {"url": ...}}
            value = value.get("url")
    if isinstance(value, list):
        raise FieldError(field, "lists the frames of a video: give the path of the video file")
    path = text_field({field: value}, field)
    if path.startswith("data:") or len(path) > 4096:
        raise FieldError(field, f"holds the {kind} itself: save it as a file and give its path")
    return (kind, path.removeprefix("file://"), *span)
