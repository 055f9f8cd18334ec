"""Class keywords of a configuration: other defaults, former names, choices, notes."""

import json
from pathlib import Path
from typing import Generic, TypeVar

import pytest
from pydantic import Field

from cli.config import (
    Config,
    UsageError,
    differing_options,
    read_config,
    save_config,
)

T = TypeVar("T")
FLAVOURS = ["plain", "mint"]


class TeaOptions(
    Config, Generic[T], renamed={"herb": "flavour"}, choices={"flavour": lambda: FLAVOURS}
):
    """A group with an option whose type its commands choose."""

    kettle: T
    """Where water boils."""
    flavour: str = "plain"
    """Flavour of the tea."""
    spoons: int | None = Field(2, ge=1)
    """Spoons of sugar."""


class CupOptions(Config, renamed={"mug_size": "size", "hot_cup": "is_hot"}):
    """Another group."""

    size: float = 0.2
    """Size of the cup."""
    is_hot: bool = True
    """Warm the cup first."""


class ServeConfig(TeaOptions[Path], CupOptions):
    """A command that takes both groups as they are."""

    guests: int = 1
    """How many drink."""


class PictureConfig(
    TeaOptions[Path | None],
    CupOptions,
    defaults={"kettle": None, "size": 0.5},
    renamed={"herb": "artist", "painter": "artist"},
    choices={"flavour": lambda: (*FLAVOURS, "none at all")},
    notes={"size": "Painted larger."},
):
    """A command that differs in all that can differ."""

    artist: str = "nobody"
    """Who paints."""


def serve(*words: str) -> ServeConfig:
    return read_config(ServeConfig, words, prog="p2r.serve", description="Serves.")


def picture(*words: str) -> PictureConfig:
    return read_config(PictureConfig, words, prog="p2r.picture", description="Paints.")


def test_a_command_has_the_options_of_its_groups_in_their_order() -> None:
    assert list(ServeConfig.model_fields) == [
        *("kettle", "flavour", "spoons"), *("size", "is_hot"), "guests",
    ]  # fmt: skip
    assert list(serve("--kettle", "k").as_json()) == list(ServeConfig.model_fields)


def test_a_required_option_of_a_group_is_optional_where_it_has_a_default() -> None:
    with pytest.raises(UsageError, match="required option is missing: --kettle"):
        serve()
    assert picture().kettle is None
    assert picture("--kettle", "k").kettle == Path("k")


def test_another_default_leaves_the_groups_own_alone() -> None:
    assert (picture().size, serve("--kettle", "k").size) == (0.5, 0.2)
    with pytest.raises(UsageError, match="--spoons: expected greater than or equal to 1"):
        picture("--spoons", "0")


def test_a_note_follows_the_help_of_one_command_only(capsys: pytest.CaptureFixture[str]) -> None:
    for show in (picture, serve):
        with pytest.raises(SystemExit):
            show("--help")
    text = capsys.readouterr().out
    assert text.count("Size of the cup.") == 2
    assert "Size of the cup. Painted larger. (default: 0.5)" in text


def test_choices_are_asked_for_when_they_are_needed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UsageError) as caught:
        serve("--kettle", "k", "--flavour", "mont")
    assert str(caught.value) == (
        "--flavour: expected one of plain, mint, got 'mont'; did you mean 'mint'?"
    )
    monkeypatch.setitem(globals(), "FLAVOURS", ["plain", "mint", "lemon"])
    assert serve("--kettle", "k", "--flavour", "lemon").flavour == "lemon"
    with pytest.raises(SystemExit):
        serve("--help")
    assert "--flavour {plain,mint,lemon}" in capsys.readouterr().out


def test_help_shows_what_choices_mean(capsys: pytest.CaptureFixture[str]) -> None:
    class Sweet(TeaOptions[Path], choices={"flavour": lambda: {"plain": "0 % sugar", "x": "much"}}):
        pass

    with pytest.raises(SystemExit):
        read_config(Sweet, ["--help"], prog="p", description="d")
    text = " ".join(capsys.readouterr().out.split())
    assert (
        "--flavour {plain,x} Flavour of the tea. (default: plain) plain: 0 % sugar; x: much" in text
    )


def test_a_command_may_widen_the_choices_of_a_group() -> None:
    assert picture("--flavour", "none at all").flavour == "none at all"
    with pytest.raises(UsageError, match="got 'none at all'"):
        serve("--kettle", "k", "--flavour", "none at all")


def test_an_old_flag_works_and_says_its_new_name(capsys: pytest.CaptureFixture[str]) -> None:
    config = serve("--kettle", "k", "--herb", "mint", "--no-hot-cup")
    assert (config.flavour, config.is_hot) == ("mint", False)
    end = "; the old name goes with the next release"
    assert capsys.readouterr().err.splitlines() == [
        f"p2r.serve: --herb is now called --flavour{end}",
        f"p2r.serve: --no-hot-cup is now called --no-is-hot{end}",
    ]


def test_old_flags_do_not_show(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        serve("--help")
    text = capsys.readouterr().out
    assert "--herb" not in text
    assert "--hot-cup" not in text
    with pytest.raises(UsageError, match="unknown option --hot-cap; did you mean --is-hot"):
        serve("--hot-cap")


@pytest.mark.parametrize("key", ["mug-size", "mug_size"])
def test_an_old_key_of_the_config_file_works(
    key: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "options.yaml"
    file.write_text(f"{key}: 0.7\nhot_cup: false\nkettle: k\n")
    config = serve("--config", str(file))
    assert (config.size, config.is_hot) == (0.7, False)
    assert "p2r.serve: mug-size is now called size;" in capsys.readouterr().err
    assert serve("--config", str(file), "--size", "0.9").size == 0.9


def test_old_and_new_name_together_are_wrong_usage(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        serve("--kettle", "k", "--herb", "mint", "--flavour", "plain")
    assert str(caught.value) == (
        "--herb and --flavour are names of the same option; give --flavour only"
    )
    file = tmp_path / "options.yaml"
    file.write_text("mug-size: 0.7\nsize: 0.9\nkettle: k\n")
    with pytest.raises(UsageError, match="give size only"):
        serve("--config", str(file))
    with pytest.raises(UsageError, match="give --artist only"):
        picture("--herb", "a", "--painter", "b")


def test_a_command_decides_where_the_old_name_of_a_group_leads() -> None:
    assert picture("--herb", "Ada").artist == "Ada"


def test_an_old_saved_configuration_is_compared_by_new_names(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    config = serve("--kettle", "k", "--flavour", "mint")
    save_config(config, path)
    saved = json.loads(path.read_text())
    saved["herb"] = saved.pop("flavour")
    path.write_text(json.dumps(saved))
    assert differing_options(config, path) == []
    assert differing_options(serve("--kettle", "k"), path) == [
        '--flavour was "mint", is now "plain"'
    ]


def test_class_keywords_name_options_that_exist() -> None:
    with pytest.raises(TypeError, match="Wrong has no option tee"):

        class Wrong(CupOptions, defaults={"tee": 1}):
            pass

    with pytest.raises(TypeError, match="Lost has no option pot"):

        class Lost(CupOptions, renamed={"jug": "pot"}):
            pass

    with pytest.raises(TypeError, match="Twice renames is_hot, which it still has"):

        class Twice(CupOptions, renamed={"is_hot": "size"}):
            pass


class KettleConfig(CupOptions, removed={"whistles": True, "lid": "tin"}):
    """A command that has lost two options."""

    sorts: tuple[str, ...] = ()
    """Sorts of tea."""


def boil(*words: str) -> KettleConfig:
    return read_config(KettleConfig, words, prog="p2r.boil", description="Boils.")


def test_a_removed_option_is_ignored_with_the_value_that_it_could_have(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = tmp_path / "options.yaml"
    options.write_text("whistles: true\nlid: tin\n")
    for words in (("--whistles", "--lid", "tin"), ("--config", str(options))):
        assert boil(*words) == boil()
        assert "whistles is no longer an option and changes nothing" in capsys.readouterr().err
    saved = boil().as_json()
    options.write_text(json.dumps(saved | {"whistles": True, "lid": "tin"}))
    assert differing_options(boil(), options) == []
    options.write_text(json.dumps(saved | {"whistles": False}))
    assert differing_options(boil(), options) == ["--whistles was false, is no longer an option"]


@pytest.mark.parametrize(("words", "given"), [("--no-whistles", ""), ("--lid", "oak")])
def test_a_removed_option_with_another_value_is_wrong_usage(words: str, given: str) -> None:
    with pytest.raises(UsageError, match=f"{words} cannot be given: it is no longer an option"):
        boil(words, *given.split())


def test_an_option_cannot_be_there_and_removed() -> None:
    with pytest.raises(TypeError, match="removes size, which it still has"):

        class Both(CupOptions, removed={"size": 1.0}):
            """A mistake."""


def test_a_single_value_in_a_file_is_a_list_of_one(tmp_path: Path) -> None:
    options = tmp_path / "options.yaml"
    options.write_text("sorts: green\n")
    assert boil("--config", str(options)).sorts == ("green",)
