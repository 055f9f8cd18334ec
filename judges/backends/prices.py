"""What a token costs: one dated table, `prices.toml`, which a user's own file can extend."""

import tomllib
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from judges.backends.base import Usage

_MILLION = 1_000_000
_FREE_PROVIDERS = frozenset({"local", "oracle"})


# A dollar per token: a thousand times what the dearest model costs. More is a mistake in the unit.
_DEAREST = 1_000_000.0
_Dollars = Annotated[float, Field(ge=0, le=_DEAREST)]


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)

    input: _Dollars
    output: _Dollars
    cache_read: _Dollars | None = None
    cache_write: _Dollars | None = None

    def rates(self) -> "Rates":
        return Rates(
            input=self.input,
            output=self.output,
            cache_read=0.1 * self.input if self.cache_read is None else self.cache_read,
            cache_write=1.25 * self.input if self.cache_write is None else self.cache_write,
        )


class _LongPrompt(_Entry):
    above_tokens: int = Field(gt=0)


class _Model(_Entry):
    batch_factor: float = Field(default=0.5, ge=0, le=1)
    long_prompt: _LongPrompt | None = None


class _Table(BaseModel):
    """A price file: `dated`, `source`, and one table of models per provider."""

    model_config = ConfigDict(frozen=True, extra="allow")
    __pydantic_extra__: dict[str, dict[str, _Model]] = Field(init=False)

    dated: str = ""
    source: str = ""


@dataclass(frozen=True)
class Rates:
    """US dollars per million tokens."""

    input: float
    output: float
    cache_read: float
    cache_write: float

    def dollars(self, usage: Usage) -> float:
        """Cost of `usage`, whose `input_tokens` are those that no cache wrote or read."""
        return (
            usage.input_tokens * self.input
            + usage.output_tokens * self.output
            + usage.cache_read_tokens * self.cache_read
            + usage.cache_write_tokens * self.cache_write
        ) / _MILLION


@dataclass(frozen=True)
class ModelPrice:
    """One model's rates; `long_rates` hold for prompts of more than `long_above_tokens` tokens."""

    rates: Rates
    batch_factor: float = 0.5
    long_above_tokens: int | None = None
    long_rates: Rates | None = None

    def cost(self, usage: Usage, batch: bool) -> float:
        """US dollars for one request, at the batch price or the live one."""
        prompt_tokens = usage.input_tokens + usage.cache_read_tokens + usage.cache_write_tokens
        dollars = self._rates_at(prompt_tokens).dollars(usage)
        return dollars * self.batch_factor if batch else dollars

    def worst_case(self, input_tokens: int, output_tokens: int, batch: bool) -> float:
        """Upper bound in US dollars of a request of at most these tokens, whatever is cached."""
        dearest = 0.0
        sizes = {input_tokens, min(input_tokens, self.long_above_tokens or input_tokens)}
        for size in sizes:
            rates = self._rates_at(size)
            per_input = max(rates.input, rates.cache_read, rates.cache_write)
            dollars = (size * per_input + output_tokens * rates.output) / _MILLION
            dearest = max(dearest, dollars)
        return dearest * self.batch_factor if batch else dearest

    def _rates_at(self, prompt_tokens: int) -> Rates:
        if self.long_rates is None or self.long_above_tokens is None:
            return self.rates
        return self.long_rates if prompt_tokens > self.long_above_tokens else self.rates


_FREE = ModelPrice(Rates(0.0, 0.0, 0.0, 0.0))


@dataclass(frozen=True)
class Prices:
    """All known prices. `dated` and `source` say what the built-in ones were read from."""

    dated: str
    source: str
    _models: dict[tuple[str, str], ModelPrice] = field(repr=False)

    @classmethod
    def load(cls, path: Path | None = None) -> "Prices":
        """The built-in table; entries of the user's file `path` are added or replace whole entries.

        Raises ValueError with a sentence when the file is missing or is no price file.
        """
        built_in = resources.files("judges.backends").joinpath("prices.toml")
        table = _parse(built_in.read_text(encoding="utf-8"), "prices.toml")
        models = _models(table)
        if path is not None:
            try:
                text = path.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise ValueError(
                    f"the price file {str(path)!r} cannot be read ({error}): "
                    "give a TOML file in the format of judges/backends/prices.toml"
                ) from error
            models |= _models(_parse(text, str(path)))
        return cls(table.dated, table.source, models)

    def price(self, provider: str, model: str) -> ModelPrice | None:
        """The price of exactly this model id, or None. What runs in this process costs nothing."""
        if provider in _FREE_PROVIDERS:
            return _FREE
        return self._models.get((provider, model))


def _parse(text: str, name: str) -> _Table:
    try:
        return _Table.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"the price file {name!r} is not TOML: {error}") from error
    except RecursionError:
        raise ValueError(f"the price file {name!r} is no price file: nested too deeply") from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ValueError(
            f"the price file {name!r} is wrong at {place!r}: {first['msg']} "
            f"(given {first['input']!r}; expected [provider.model-id] tables "
            "with input and output in US dollars per million tokens)"
        ) from error


def _models(table: _Table) -> dict[tuple[str, str], ModelPrice]:
    return {
        (provider, model): ModelPrice(
            rates=entry.rates(),
            batch_factor=entry.batch_factor,
            long_above_tokens=entry.long_prompt.above_tokens if entry.long_prompt else None,
            long_rates=entry.long_prompt.rates() if entry.long_prompt else None,
        )
        for provider, models in (table.__pydantic_extra__ or {}).items()
        for model, entry in models.items()
    }
