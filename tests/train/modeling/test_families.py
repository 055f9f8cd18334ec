"""Records of model families: found by type and by processor, unknown ones refused by name."""

from dataclasses import replace
from pathlib import Path

import pytest
import transformers
from helpers.tiny_models import tiny_model
from helpers.training_world import tiny_model_folder

from cli.config import UsageError
from train.modeling import families
from train.modeling.families import (
    QWEN2_5_VL,
    QWEN3_5,
    QWEN3_VL,
    ModelFamily,
    attention_layers,
    family_names,
    family_of,
    family_of_processor,
    find_family,
    register_family,
)
from train.modeling.loading import load_policy, load_processor, processor_family
from train.modeling.lora import lora_config
from train.modeling.packed_forward import why_not_shared
from train.modeling.vision_cache import vision_tower


class Stranger:
    """A processor of no known family."""


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Families that a test registers are gone after it; those of other tests are not seen."""
    shipped = {family.name: family for family in (QWEN2_5_VL, QWEN3_VL)}
    monkeypatch.setattr(families, "_FAMILIES", shipped)


@pytest.mark.parametrize(
    ("name", "family"),
    [("qwen2.5-vl", QWEN2_5_VL), ("qwen3-vl", QWEN3_VL), ("qwen3.5", QWEN3_5)],
    ids=["2.5", "3", "3.5"],
)
def test_a_model_and_its_processor_have_one_record(name: str, family: ModelFamily) -> None:
    model, processor = tiny_model(name), load_processor(tiny_model_folder(name))
    assert family_of(model.config) is family
    assert processor_family(processor) is family
    # Qwen3.5 has Qwen3-VL's processor; the model beside it decides.
    assert family_of_processor(processor) is (QWEN3_VL if family is QWEN3_5 else family)
    assert vision_tower(model) is model.model.visual
    tokens = family.vision_tokens(model.config)
    assert (tokens.video_id, tokens.image_id, tokens.merge_size) == (2, 1, 2)
    adapted = set(lora_config(4, family).target_modules)
    linear = {
        key.rpartition(".")[2] for key, module in model.named_modules() if hasattr(module, "bias")
    }
    assert adapted <= linear


def test_layers_that_attend_and_layers_that_keep_a_state() -> None:
    model = tiny_model("qwen3.5")
    assert attention_layers(model.config) == [0, 2]
    assert QWEN3_5.recurrent_layers(model) == [model.model.language_model.layers[1].linear_attn]
    assert attention_layers(tiny_model("qwen3-vl").config) == [0, 1, 2]
    assert not QWEN3_VL.recurrent_layers(tiny_model("qwen3-vl"))
    # The released 9B: https://huggingface.co/Qwen/Qwen3.5-9B/blob/main/config.json
    released = transformers.Qwen3_5Config()
    assert attention_layers(released) == [3, 7, 11, 15, 19, 23, 27, 31]


def test_a_processor_belongs_to_the_model_that_it_was_loaded_with(known: None) -> None:
    """Two families may share a class of processors."""
    processor = load_processor(tiny_model_folder("qwen2.5-vl"))
    families._FAMILIES.clear()
    register_family(replace(QWEN2_5_VL, name="first", model_types=("first_vl",)))
    second = register_family(replace(QWEN2_5_VL, name="second", processors=()))
    assert processor_family(processor) is second
    assert family_of_processor(processor).name == "first"


def test_unknown_models_are_refused_with_the_families_that_there_are(
    known: None, tmp_path: Path
) -> None:
    qwen2 = transformers.Qwen2VLConfig()
    qwen2.save_pretrained(tmp_path)
    for load in (load_policy, load_processor):
        with pytest.raises(
            UsageError,
            match=r"is qwen2_vl, a family that is not known .* Qwen2\.5-VL or Qwen3-VL, or",
        ):
            load(tmp_path)
    with pytest.raises(UsageError, match=r"type qwen2_vl .* Qwen2\.5-VL or Qwen3-VL"):
        family_of(qwen2)
    with pytest.raises(
        UsageError, match=r"^Stranger is not a processor .* Qwen2\.5-VL or Qwen3-VL$"
    ):
        processor_family(Stranger())
    register_family(ModelFamily(name="My-VL", model_types=("my_vl",)))
    assert family_names() == "Qwen2.5-VL, Qwen3-VL or My-VL"


def test_a_name_or_type_is_registered_once(known: None) -> None:
    mine = ModelFamily(name="My-VL", model_types=("my_vl", "my_vl_moe"))
    assert register_family(mine) is register_family(mine) is find_family("my_vl_moe")
    for clash in (
        ModelFamily(name="My-VL", model_types=("other",)),
        ModelFamily(name="Other", model_types=("other", "my_vl")),
    ):
        with pytest.raises(UsageError, match="clashes with 'My-VL'"):
            register_family(clash)
    assert find_family("other") is None


def test_prompts_of_unknown_models_are_not_shared(known: None) -> None:
    families._FAMILIES.pop("Qwen3-VL")
    reason = why_not_shared(tiny_model("qwen3-vl"))
    assert reason == "qwen3_vl is not of the family Qwen2.5-VL"


def test_layers_with_a_state_that_no_record_names_are_not_shared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    unnamed = ModelFamily(name="Qwen3.5", model_types=QWEN3_5.model_types)
    monkeypatch.setattr(families, "_FAMILIES", {"Qwen3.5": unnamed})
    assert why_not_shared(tiny_model("qwen3.5")) == (
        "some of its layers keep a state, and the record of its family does not name them"
    )
