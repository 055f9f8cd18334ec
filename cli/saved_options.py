"""The options of a run, written into its folder, and what a resumed run may change of them."""

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any, TextIO

from cli.config_class import Config, with_present_names
from cli.exit_status import UsageError, say
from cli.option_parser import option_name
from schemas.serialization import write_text


def print_config(config: Config, file: TextIO | None = None) -> None:
    """The options that differ from the defaults, as YAML that `--config` takes; on stderr by
    default. `save_config` writes all of them."""
    for name, value in changed_options(config).items():
        say(f"{name.replace('_', '-')}: {json.dumps(value, ensure_ascii=False)}", file)


def changed_options(config: Config) -> dict[str, Any]:
    """Options whose values differ from the defaults, required ones included, as JSON values."""
    fields = type(config).model_fields
    return {
        name: value
        for name, value in config.as_json().items()
        if getattr(config, name) != fields[name].get_default(call_default_factory=True)
    }


def save_config(config: Config, path: Path) -> None:
    """Write the resolved configuration as JSON, atomically."""
    write_text(path, json.dumps(config.as_json(), indent=2, ensure_ascii=False) + "\n")


def saved_options(path: Path, config_class: type[Config]) -> dict[str, Any]:
    """The options in a file of `save_config`, under today's names. Raises UsageError."""
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UsageError(
            f"{path} should hold the configuration of the run to resume, but cannot be read "
            f"({error}); use another --output-dir"
        ) from None
    if not isinstance(saved, dict):
        raise UsageError(
            f"{path} should hold a JSON object of options, not {type(saved).__name__}; "
            "use another --output-dir"
        )
    return with_present_names(saved, config_class)


def differing_options(
    config: Config, saved_path: Path, may_change: Collection[str] = frozenset()
) -> list[str]:
    """Options that differ from a saved configuration, each as `--option was OLD, is now NEW`.

    `may_change` names the fields that may differ on resume. An option that the saved file does not
    know had its default then; an option that was renamed since is known by its old name; paths are
    compared by where they lead. The folder itself may have been moved: its name is not compared.
    """
    saved = saved_options(saved_path, type(config))
    new = config.as_json()
    differences = []
    for name, field in type(config).model_fields.items():
        if name in may_change or name == "output_dir":
            continue
        if name not in saved and field.is_required():
            differences.append(f"{option_name(name)} was not there, is now {json.dumps(new[name])}")
            continue
        old = (
            saved[name]
            if name in saved
            else _json_default(field.get_default(call_default_factory=True))
        )
        if old != new[name] and not _same_path(getattr(config, name), old):
            differences.append(
                f"{option_name(name)} was {json.dumps(old)}, is now {json.dumps(new[name])}"
            )
    differences += [
        f"{option_name(name)} was {json.dumps(saved[name])}, is no longer an option"
        for name in saved
        if name not in new and name not in may_change
    ]
    return differences


def refuse_changed_options(
    config: Config, saved_path: Path, may_change: Collection[str] = frozenset()
) -> None:
    """Raise `UsageError` when a resumed run's options differ from the saved ones.

    A folder that holds nothing but its options is one of a run that never began.
    """
    differences = differing_options(config, saved_path, may_change)
    if differences and any(path != saved_path for path in saved_path.parent.iterdir()):
        raise UsageError(
            f"{saved_path.parent} was begun with other options: {'; '.join(differences)}; "
            "give the old values to resume, or another --output-dir to begin anew"
        )


def _json_default(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    return list(value) if isinstance(value, tuple) else value


def _same_path(new: Any, old: Any) -> bool:
    return isinstance(new, Path) and isinstance(old, str) and new.resolve() == Path(old).resolve()
