"""A model whose template, tokens or ends cannot be used is refused by name when it is opened."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cli.config import UsageError
from judges.backends.local_model import LocalModel
from judges.backends.model_files.texts import (
    refuse_foreign_tokens,
    unreadable_settings,
    unusable_end,
)


@pytest.mark.parametrize(
    ("template", "sentence"),
    [
        ("{% if %}", "cannot be used .TemplateSyntaxError: Expected an expression"),
        ("{{ raise_exception('no system') }}", "cannot be used .TemplateError: no system"),
        ("{{ messages[0].foo.bar }}", "cannot be used .UndefinedError"),
        ("{{ messages[0].content + 1 }}", "cannot be used .TypeError"),
        ("{{ messages.__class__ }}", "cannot be used .SecurityError|leaves out"),
        ("Hello", "leaves out what the user says: .* it makes 'Hello'"),
        ("{% for m in messages %}{{ m.role }}{% endfor %}", "leaves out .* it makes 'user'"),
    ],
)
def test_a_template_that_cannot_be_used_is_told_when_a_model_is_opened(
    tiny_llama: Path, tmp_path: Path, template: str, sentence: str
) -> None:
    folder = tmp_path / "judge"
    shutil.copytree(tiny_llama, folder)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(
        json.dumps(settings | {"chat_template": template})
    )
    (folder / "chat_template.jinja").write_text(template)
    with pytest.raises(UsageError, match=f"^the chat template of .* {sentence}"):
        LocalModel(folder, "cpu")


def test_a_model_without_an_embedding_for_its_tokens_is_refused(tiny_qwen: Path) -> None:
    opened = LocalModel(tiny_qwen, "cpu")
    processor: Any = opened._processor
    refuse_foreign_tokens("m", opened.model, processor)
    other = SimpleNamespace(
        config=SimpleNamespace(image_token_id=opened.model.config.image_token_id + 1),
        get_input_embeddings=opened.model.get_input_embeddings,
    )
    with pytest.raises(UsageError, match=r"as image_token_id, and its processor wri"):
        refuse_foreign_tokens("m", other, processor)
    opened.model.resize_token_embeddings(2)
    with pytest.raises(UsageError, match=r"knows 2 tokens, .* writes the token"):
        refuse_foreign_tokens("m", opened.model, processor)


@pytest.mark.parametrize(
    ("ends", "is_usable"),
    [
        (None, True),
        (2, True),
        ([2, 3], True),
        ([], True),
        ("</s>", False),
        ([2, "</s>"], False),
        (-1, False),
        (2.0, False),
        (True, False),
    ],
)
def test_ends_are_numbers_of_tokens(ends: object, is_usable: bool) -> None:
    assert (unusable_end(SimpleNamespace(eos_token_id=ends)) == "") == is_usable


@pytest.mark.parametrize("content", ["{", "[1]", "3", "", "[" * 100_000])
def test_settings_that_are_no_object_are_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "trainer_state.json").write_text(content)  # of somebody else
    assert unreadable_settings(tmp_path) == ""
    (tmp_path / "generation_config.json").write_text(content)
    assert "generation_config.json holds no JSON object" in unreadable_settings(tmp_path)
    (tmp_path / "generation_config.json").write_bytes(b"\xef\xbb\xbf{}")
    assert unreadable_settings(tmp_path) == ""
