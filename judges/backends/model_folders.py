"""Model folders: reading a model whole or not at all.

transformers fills what a checkpoint lacks with random numbers and says so in a log line. Nothing
here is substituted: what is missing, unknown, of another shape or not finite is named and refused.
"""

import json
import logging
import pickle
import struct
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import reduce
from operator import and_
from pathlib import Path
from typing import Any

from judges.backends.model_files.texts import (
    refuse_unusable_template,
    unreadable_settings,
    unusable_end,
)

_NAMED = 3
"""Tensors that a sentence names."""
_LFS = b"version https://git-lfs"
_LONGEST_POINTER = 1024
_LONGEST_HEADER = 100_000_000
"""The most bytes that safetensors reads as a header."""
_CHECKED = ("torch.float16", "torch.bfloat16", "torch.float32", "torch.float64")
_TEXTS = (".json", ".jinja", ".model", ".txt")
_WEIGHTS = ("model", "pytorch_model", "adapter_model")
# Beginnings of names that differ between releases and ways of saving.
_WRAPPERS = frozenset({"model", "language_model", "base_model", "module", "_orig_mod"})

LOADING_ERRORS: tuple[type[Exception], ...] = (
    OSError,
    ValueError,
    LookupError,
    ImportError,
    RuntimeError,
    TypeError,
    AttributeError,
    EOFError,
    AssertionError,
    ArithmeticError,
    MemoryError,
    pickle.UnpicklingError,
    struct.error,
)
"""What readers of damaged files raise, besides safetensors' own error (`loading_errors`)."""


class BrokenWeightsError(ValueError):
    """Weights cannot be used as they are. One sentence: which, what is wrong, what to do."""


def loading_errors() -> tuple[type[Exception], ...]:
    """What can be raised where a model or one of its files is read. Loads safetensors."""
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError

    return (*LOADING_ERRORS, SafetensorError, StrictDataclassError)


@contextmanager
def reading_tokenizers() -> Iterator[None]:
    """Raises ValueError for what tokenizers reports of a damaged file: a plain Exception."""
    try:
        yield
    except Exception as error:
        if type(error) is Exception:
            raise ValueError(f"its tokenizer cannot be read: {error}") from error
        raise


def read_whole_model(load: Callable[..., Any], source: str | Path) -> Any:
    """The model that `load(source, **options)`, a `from_pretrained`, gives, if it is whole.

    Code that comes with it is never run. Raises BrokenWeightsError, and what `load` raises.
    """
    refuse_broken_files(Path(source))
    with _without_load_report():
        model, report = load(
            str(source),
            trust_remote_code=False,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they come with their names then
        )
    refuse_unfit_tensors(
        source,
        missing=report["missing_keys"],
        unexpected=report["unexpected_keys"],
        mismatched=report["mismatched_keys"],
    )
    refuse_not_finite(source, model.state_dict())
    if getattr(model, "hf_quantizer", None) is None:
        _refuse_whole_numbers(Path(source))
    if fault := unusable_end(model.generation_config):
        raise BrokenWeightsError(f"the model {source} cannot be used: {fault}")
    return model


def take_chat_template(processor: Any) -> bool:
    """Give a processor without a chat template that of its tokenizer; whether it has one then.

    Raises UsageError for one that cannot be used.
    """
    if not getattr(processor, "chat_template", None):
        tokenizer = getattr(processor, "tokenizer", processor)
        processor.chat_template = getattr(tokenizer, "chat_template", None)
    if processor.chat_template:
        refuse_unusable_template(processor)
    return bool(processor.chat_template)


def refuse_unfit_tensors(
    source: str | Path,
    *,
    missing: Collection[str],
    unexpected: Collection[str],
    mismatched: Collection[tuple[str, Any, Any]] = (),
) -> None:
    """Raise BrokenWeightsError where a checkpoint's tensors are not those of its model.

    Heads that are tied to the embedding are not missing: transformers leaves them out.
    """
    faults = []
    if missing:
        faults.append(f"lacks {_tensors(missing)}")
    if unexpected:
        faults.append(f"holds {_tensors(unexpected)} that the model does not have")
    if mismatched:
        shapes = [f"{name}: {_shape(a)} instead of {_shape(b)}" for name, a, b in mismatched]
        faults.append(f"holds {_tensors(shapes)} of another shape")
    if faults:
        raise BrokenWeightsError(
            f"the model {source} {' and '.join(faults)}; give all files of a checkpoint, with the"
            " config.json that belongs to them: nothing is filled in"
        )


def refuse_not_finite(source: str | Path, tensors: Mapping[str, Any]) -> None:
    """Raise BrokenWeightsError where a weight is NaN or infinite."""
    found = not_finite(tensors.items())
    if found:
        raise BrokenWeightsError(
            f"the model {source} holds {_tensors(found)} with numbers that are not finite (NaN or"
            " infinite); give a checkpoint from before they came"
        )


def not_finite(tensors: Iterable[tuple[str, Any]]) -> list[str]:
    """The names of tensors that hold NaN or an infinity."""
    names, is_good = [], []
    for name, value in tensors:
        here = value.detach()
        here = here.to_local() if hasattr(here, "to_local") else here  # a shard of it
        if str(here.dtype) in _CHECKED and here.numel() and here.device.type != "meta":
            # NaN is the smallest and the largest number of whatever holds it
            low, high = here.aminmax()
            names.append(name)
            is_good.append(low.isfinite() & high.isfinite())
    if not names or bool(reduce(and_, is_good)):  # a GPU is waited for once
        return []
    return [name for name, good in zip(names, is_good, strict=True) if not good]


def refuse_broken_files(folder: Path) -> None:
    """Raise BrokenWeightsError where files of a model folder are missing, cut or only pointers.

    Of weights only the heads are read. A name that is no folder is left to the hub's client.
    """
    if not folder.is_dir():
        return
    fault = broken_file(folder)
    if fault:
        raise BrokenWeightsError(f"the model {folder} cannot be used: {fault}")


def broken_file(folder: Path) -> str:
    """What is wrong with the files of a model folder, in words; empty where nothing is."""
    weights = weight_files(folder)
    texts = [path for path in sorted(folder.iterdir()) if path.suffix in _TEXTS and path.is_file()]
    for path in (*weights, *texts):
        if _is_lfs_pointer(path):
            return (
                f"{path.name} is a git-LFS pointer and not the file itself; run `git lfs pull`"
                " there"
            )
    for suffix in (".safetensors", ".bin"):
        fault = _lost_shards(folder, suffix)
        if fault:
            return fault
        if any(path.suffix == suffix for path in weights):
            break
    for path in weights:
        fault = _broken_weights(path)
        if fault:
            return f"{path.name} {fault}; fetch it again"
    return _tensor_that_is_there_twice(folder) or unreadable_settings(folder)


def _files_read(folder: Path) -> list[Path]:
    """The safetensors files of a model that are read, of those that lie there."""
    whole, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if whole.is_file() or not index.is_file():
        return [whole] if whole.is_file() else []
    shards = json.loads(index.read_text("utf-8"))["weight_map"].values()
    return [folder / name for name in sorted({str(shard) for shard in shards})]


def _tensor_that_is_there_twice(folder: Path) -> str:
    """A tensor of which two different ones may be loaded, in words: twice in the shards, or under
    the name of an older release as well."""
    seen: dict[str, str] = {}
    for path in _files_read(folder):
        for name in _head(path):
            place = f"{name} in {path.name}"
            parts = name.split(".")
            while len(parts) > 1 and parts[0] in _WRAPPERS:
                parts.pop(0)
            if (other := seen.setdefault(".".join(parts), place)) != place:
                return (
                    f"{other} and {place} are the same tensor; give a checkpoint that has it once"
                )
    return ""


def _refuse_whole_numbers(folder: Path) -> None:
    """Raise BrokenWeightsError where weights are whole numbers: quantised ones without their scale,
    which would be taken as they are."""
    found = [
        name
        for path in (_files_read(folder) if folder.is_dir() else [])
        for name, tensor in _head(path).items()
        if name.endswith((".weight", ".bias")) and tensor["dtype"].startswith(("I", "U", "BOOL"))
    ]
    if found:
        raise BrokenWeightsError(
            f"the model {folder} holds {_tensors(found)} of whole numbers, which are quantised"
            " weights without what they are scaled by; give a checkpoint of full numbers"
        )


def weight_files(folder: Path) -> list[Path]:
    """The files of a folder that weights of a model or an adapter are read from.

    As transformers does, those of torch (.bin) only where there is none of safetensors.
    """
    found = [
        path
        for path in sorted(folder.iterdir())
        if path.name.startswith(_WEIGHTS) and path.is_file()
    ]
    return [path for path in found if path.suffix == ".safetensors"] or [
        path for path in found if path.suffix == ".bin"
    ]


def _lost_shards(folder: Path, suffix: str) -> str:
    """The shards that an index of this kind names and that are not there, in words."""
    for index in sorted(folder.glob(f"*{suffix}.index.json")):
        if index.with_name(index.name.removesuffix(".index.json")).is_file():
            continue  # the whole file is read, not the shards
        try:
            shards = {
                str(each) for each in json.loads(index.read_text("utf-8"))["weight_map"].values()
            }
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            return f"{index.name} cannot be read; fetch it again"
        lost = [name for name in sorted(shards) if not (folder / name).is_file()]
        if lost:
            return f"{index.name} names files that are not there: {', '.join(lost[:_NAMED])}"
    return ""


def _broken_weights(path: Path) -> str:
    size = path.stat().st_size
    if not size:
        return "is empty"
    if path.suffix != ".safetensors":
        return ""  # torch says so when it reads it
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
        if length > min(_LONGEST_HEADER, size - 8):
            return "is no safetensors file, or its head is cut"
        spans = [own["data_offsets"][1] for own in _head(path).values()]
        whole = 8 + length + max(spans, default=0)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, struct.error):
        return "is no safetensors file, or its head is damaged"
    return "" if size == whole else f"has {size:,} bytes instead of {whole:,}"


def _head(path: Path) -> dict[str, Any]:
    """What a safetensors file says of its tensors, by name."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header: dict[str, Any] = json.loads(file.read(length))
    return {name: tensor for name, tensor in header.items() if name[:2] != "__"}


def _is_lfs_pointer(path: Path) -> bool:
    if path.stat().st_size > _LONGEST_POINTER:
        return False
    with path.open("rb") as file:
        return file.read(len(_LFS)) == _LFS


def _tensors(names: Collection[str]) -> str:
    """Such as `10 tensors (a, b, c, ...)`."""
    first = sorted(names)[:_NAMED]
    more = ["..."] if len(names) > _NAMED else []
    plural = "" if len(names) == 1 else "s"
    return f"{len(names):,} tensor{plural} ({', '.join([*first, *more])})"


def _shape(shape: Iterable[int]) -> str:
    return "x".join(map(str, shape)) or "one number"


@contextmanager
def _without_load_report() -> Iterator[None]:
    """transformers' table of tensors that do not fit: the sentence here says what it says."""
    logger = logging.getLogger("transformers.modeling_utils")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
