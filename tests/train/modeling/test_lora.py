"""Adapters in the weights of their layers, for as long as completions grow."""

import copy
from typing import Any

import pytest
import torch
from helpers.tiny_models import tiny_model

from train.modeling.families import family_of
from train.modeling.lora import adapters_in_weights, lora_config


def adapted(dtype: torch.dtype = torch.float32, *names: str) -> Any:
    """A tiny model with random adapters of these names; the first one is active."""
    from peft import get_peft_model

    model = copy.deepcopy(tiny_model("qwen2.5-vl")).to(dtype)
    torch.manual_seed(0)
    first, *others = names or ("default",)
    wrapped = get_peft_model(model, lora_config(3, family_of(model.config)), adapter_name=first)
    for name in others:
        wrapped.add_adapter(name, lora_config(3, family_of(model.config)))
    for name, parameter in wrapped.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    wrapped.set_adapter(first)
    return wrapped


def layer_of(wrapped: Any) -> Any:
    return wrapped.get_base_model().model.language_model.layers[1].mlp.up_proj


def test_adapters_are_in_the_weights_and_out_again_to_the_bit() -> None:
    wrapped = adapted()
    layer, inputs = layer_of(wrapped), torch.randn(2, 64)
    weight = layer.get_base_layer().weight
    pointer, before = weight.data_ptr(), copy.deepcopy(wrapped.state_dict())
    expected = layer(inputs)
    own_product = 2.0 * layer.lora_B["default"].weight @ layer.lora_A["default"].weight
    with adapters_in_weights(wrapped):
        assert layer.get_base_layer().weight is weight, "optimizers know parameters by identity"
        # 1e-5: float32 sums of 64 products near 10
        torch.testing.assert_close(layer(inputs), expected, rtol=0, atol=1e-5)
        torch.testing.assert_close(
            weight.data, before[key_of(wrapped, weight)] + own_product, rtol=0, atol=1e-6
        )
        with adapters_in_weights(wrapped):  # nested: nothing is added twice
            torch.testing.assert_close(layer(inputs), expected, rtol=0, atol=1e-5)
    assert weight.data_ptr() == pointer
    assert all(value.equal(before[name]) for name, value in wrapped.state_dict().items())
    assert layer(inputs).equal(expected)


def key_of(wrapped: Any, weight: torch.Tensor) -> str:
    return next(name for name, own in wrapped.named_parameters() if own is weight)


def test_an_error_inside_leaves_the_weights_as_they_were() -> None:
    wrapped = adapted()
    before = copy.deepcopy(wrapped.state_dict())
    with pytest.raises(KeyError), adapters_in_weights(wrapped):
        raise KeyError
    assert all(value.equal(before[name]) for name, value in wrapped.state_dict().items())
    assert not layer_of(wrapped).merged


def test_only_active_adapters_count_and_none_where_they_are_disabled() -> None:
    wrapped = adapted(torch.float32, "default", "ref")
    layer, inputs = layer_of(wrapped), torch.randn(2, 64)
    expected = layer(inputs)
    with adapters_in_weights(wrapped):
        torch.testing.assert_close(layer(inputs), expected, rtol=0, atol=1e-5)
    with wrapped.disable_adapter():
        plain = layer(inputs)
        with adapters_in_weights(wrapped):
            assert layer(inputs).equal(plain)


def test_sums_are_rounded_once() -> None:
    """A bfloat16 base under float32 adapters, also where autocast would round their product."""
    wrapped = adapted(torch.bfloat16)
    layer = layer_of(wrapped)
    weight = layer.get_base_layer().weight
    product = 2.0 * layer.lora_B["default"].weight @ layer.lora_A["default"].weight
    assert product.dtype == torch.float32
    expected = (weight.float() + product).bfloat16()
    with torch.autocast("cpu", torch.bfloat16), adapters_in_weights(wrapped):
        assert weight.dtype == torch.bfloat16
        assert weight.data.equal(expected)
