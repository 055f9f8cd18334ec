"""`Config`: the typed options of a command, put together from option groups.

    class BuildConfig(QuestionFileOptions[Path], FrameOptions, defaults={"frames": "uniform:8"}):
        attempts: int = Field(1, ge=1)
        '''Attempts per question until one passes all steps.'''

A group (`cli.option_groups`) declares options; a command inherits them. Class keywords adapt them:

    defaults  {option: value}: another default; None or a value makes a required option optional
    renamed   {old: new}: the old name goes on working, with a line on stderr
    removed   {old: value}: an option that is gone; the value that it could have is ignored where it
              is still given, with a line on stderr
    choices   {option: function}: returns the values that the option takes (or a mapping from values
              to meanings, which `--help` shows); called when they are needed, so that what a plugin
              registers counts
    notes     {option: sentence}: a sentence to add to the option's help
    group     where `--help` shows the options that this class declares: a key of `GROUPS`
    groups    {option: group}: where it shows single options, inherited ones too
    example   words of a command line, which `--help` ends with

All are inherited, and merged where groups meet; the class itself has the last word.
"""

import difflib
import inspect
import json
from collections.abc import Callable, Iterable, Mapping
from copy import copy
from pathlib import Path
from typing import Any, ClassVar, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator
from pydantic.fields import FieldInfo

from schemas.serialization import redact

GROUPS = {
    "data": "data",
    "media": "media: videos, images, their frames",
    "model": "model",
    "training": "training and rewards",
    "judge": "judge, teacher and other language models",
    "money": "money",
    "speed": "speed, memory and limits",
    "output": "output",
    "other": "this command",
}
"""Groups of options in the order of `--help`, with their titles."""

Choices = Callable[[], Iterable[str]]
V = TypeVar("V")


class Config(BaseModel):
    """A command's options: frozen, unknown keys are errors, the string under a field is its help.

    Secrets are never options: a field names the environment variable that holds one.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        allow_inf_nan=False,
        validate_default=True,
    )

    former_names: ClassVar[Mapping[str, str]] = {}
    """Old name of an option -> its name today."""
    removed_options: ClassVar[Mapping[str, Any]] = {}
    """Option that is gone -> the one value that it could have."""
    option_choices: ClassVar[Mapping[str, Choices]] = {}
    """Option -> the values that it takes."""
    option_groups: ClassVar[Mapping[str, str]] = {}
    """Option -> its group in `--help`."""
    example: ClassVar[str] = ""
    """Words of a command line."""

    def __init_subclass__(
        cls,
        *,
        defaults: Mapping[str, Any] | None = None,
        renamed: Mapping[str, str] | None = None,
        removed: Mapping[str, Any] | None = None,
        choices: Mapping[str, Choices] | None = None,
        notes: Mapping[str, str] | None = None,
        group: str = "",
        groups: Mapping[str, str] | None = None,
        example: str | None = None,
        **keywords: Any,
    ) -> None:
        super().__init_subclass__(**keywords)

    @classmethod
    def __pydantic_init_subclass__(
        cls,
        *,
        defaults: Mapping[str, Any] | None = None,
        renamed: Mapping[str, str] | None = None,
        removed: Mapping[str, Any] | None = None,
        choices: Mapping[str, Choices] | None = None,
        notes: Mapping[str, str] | None = None,
        group: str = "",
        groups: Mapping[str, str] | None = None,
        example: str | None = None,
        **keywords: Any,
    ) -> None:
        super().__pydantic_init_subclass__(**keywords)
        cls.former_names = _merged(cls, "former_names", renamed)
        cls.removed_options = _merged(cls, "removed_options", removed)
        cls.option_choices = _merged(cls, "option_choices", choices)
        own = dict.fromkeys(inspect.get_annotations(cls), group) if group else {}
        cls.option_groups = _merged(cls, "option_groups", {**own, **(groups or {})})
        cls.example = cls.example if example is None else example
        _check_names(
            cls, {**(defaults or {}), **(choices or {}), **(notes or {}), **(groups or {})}
        )
        cls.__pydantic_fields__ = _group_by_group(cls, defaults or {}, notes or {})
        cls.model_rebuild(force=True)

    @field_validator("*", mode="before")
    @classmethod
    def _is_no_empty_path(cls, value: V, info: ValidationInfo) -> V:
        """Python takes an empty path for the folder that one is in: a variable was not set."""
        given = value if isinstance(value, list | tuple) else (value,)
        if "" in given and _holds_paths(cls.model_fields[info.field_name or ""].annotation):
            raise ValueError("expected a path, got ''; the folder that you are in is '.'")
        return value

    @field_validator("*")
    @classmethod
    def _is_a_choice(cls, value: V, info: ValidationInfo) -> V:
        choices = cls.option_choices.get(info.field_name or "")
        if choices is not None and value is not None:
            names = tuple(choices())
            for given in value if isinstance(value, tuple) else (value,):
                if given not in names:
                    raise ValueError(no_such_choice(str(given), names))
        return value

    def as_json(self) -> dict[str, Any]:
        """Every option by field name, JSON-able, credentials in URLs blanked out."""
        dumped = json.loads(redact(json.dumps(self.model_dump(mode="json"))))
        assert isinstance(dumped, dict)
        return dumped


def _holds_paths(annotation: Any) -> bool:
    return annotation is Path or any(_holds_paths(inner) for inner in get_args(annotation))


def no_such_choice(given: str, names: Iterable[str]) -> str:
    """The sentence about a name that is not in a table: all names, and the nearest one."""
    names = tuple(name for name in names if name)  # "" is an option that may be left empty
    near = difflib.get_close_matches(given, names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"expected one of {', '.join(names)}, got {given!r}{hint}"


def with_present_names(options: Mapping[str, V], config_class: type[Config]) -> dict[str, V]:
    """`options` of an older release under today's names; a present name wins over its old one.

    A removed option is left out where it has the value that it could have.
    """
    names, gone = config_class.former_names, config_class.removed_options
    options = {
        name: value for name, value in options.items() if name not in gone or value != gone[name]
    }
    moved = {names[old]: value for old, value in options.items() if old in names}
    return moved | {name: value for name, value in options.items() if name not in names}


def _merged(cls: type[Config], attribute: str, own: Mapping[str, V] | None) -> dict[str, V]:
    """The attribute of all bases, the first one winning, and the class's own on top."""
    merged: dict[str, V] = {}
    for base in reversed(cls.__bases__):
        merged |= getattr(base, attribute, {})
    return merged | dict(own or {})


def _check_names(cls: type[Config], options: Mapping[str, Any]) -> None:
    """Class keywords name options that exist, and an old name is free."""
    wanted = {*options, *cls.former_names.values()}
    if unknown := sorted(wanted - set(cls.model_fields)):
        raise TypeError(f"{cls.__name__} has no option {', '.join(unknown)}")
    if taken := sorted(set(cls.former_names) & set(cls.model_fields)):
        raise TypeError(f"{cls.__name__} renames {', '.join(taken)}, which it still has")
    if left := sorted(set(cls.removed_options) & set(cls.model_fields)):
        raise TypeError(f"{cls.__name__} removes {', '.join(left)}, which it still has")


def _group_by_group(
    cls: type[Config], defaults: Mapping[str, Any], notes: Mapping[str, str]
) -> dict[str, FieldInfo]:
    """The fields in the order of `--help`: group by group as the class lists them, then its own."""
    of_groups = [name for base in cls.__bases__ for name in getattr(base, "model_fields", {})]
    fields = {}
    for name in dict.fromkeys((*of_groups, *cls.model_fields)):
        fields[name] = copy(cls.model_fields[name])
        if name in defaults:
            fields[name].default = defaults[name]
        if name in notes:
            fields[name].description = f"{fields[name].description} {notes[name]}"
    return fields
