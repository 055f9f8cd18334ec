"""Numbers in answers: one number, with or without a unit; anything that could be two is none."""

import re
from decimal import Decimal, localcontext

from judges.bare_answers import bare_answer

_MAX_CHARACTERS = 1_000
_MAX_UNIT_CHARACTERS = 40
_MAX_UNIT_WORDS = 4
_MAX_MAGNITUDE = 300  # powers of ten: beyond it a float is infinite or 0
_CENTS = Decimal("0.01")

_NUMBER = re.compile(
    r"""(?:(?:about|approximately|approx\.?|around|roughly|[~≈=])\s*)?
    (?P<sign>[+-]?)(?:(?:US)?[$€£¥₹]\s?)?(?P<inner_sign>[+-]?)
    (?P<digits>[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?|[0-9]+(?:\.[0-9]*)?|\.[0-9]+)
    (?:[eE](?P<exponent>[+-]?[0-9]{1,4})(?![0-9]))?
    (?:\s*[/⁄]\s*(?P<divisor>[0-9]+(?:\.[0-9]+)?))?
    (?P<rest>.*)\Z""",
    re.VERBOSE | re.DOTALL | re.IGNORECASE,
)
# Digits that belong to a unit: m2, s^-1, cm^{3}.
_UNIT_POWER = re.compile(r"(?<=[^\W\d_])\^?\{?-?[0-9]\}?(?![0-9])")
_NOT_A_UNIT = tuple("^√π×*·+=<>±/⁰¹²³⁴⁵⁶⁷⁸⁹")
_SECOND_VALUE = re.compile(r"\b(?:or|and|not|to|half)\b", re.IGNORECASE)
_SCALES = {
    "dozen": 12,
    "hundred": 100,
    "thousand": 1_000,
    "million": 1_000_000,
    "billion": 1_000_000_000,
    "trillion": 1_000_000_000_000,
}


def read_number(text: str) -> Decimal | None:
    """The one number that `text` states, its unit left off; None when there is none or a choice.

    Read: `1,200.50`, `$5`, `45%` (as 45), `3/4` (as 0.75), `1e3`, `−2`, `12 cm`, `2 million`.
    Refused: words (`three`), ranges, decimal commas (`1,5`), powers (`10^2`), NaN, infinities, more
    than 10^300.
    """
    if len(text) > _MAX_CHARACTERS:
        return None
    match = _NUMBER.match(bare_answer(text))
    if match is None or (match["sign"] and match["inner_sign"]):
        return None
    scale = _unit_scale(match["rest"])
    if scale is None:
        return None
    with localcontext(prec=2 * _MAX_MAGNITUDE, Emax=999_999, Emin=-999_999):
        exponent = match["exponent"] or "0"
        number = Decimal(f"{match['digits'].replace(',', '')}e{exponent}") * scale
        if match["divisor"]:
            divisor = Decimal(match["divisor"])
            if not divisor:
                return None
            number /= divisor
        if number and abs(number.adjusted()) > _MAX_MAGNITUDE:
            return None
        return -number if "-" in (match["sign"], match["inner_sign"]) else number


def _unit_scale(rest: str) -> int | None:
    """What the words after the number multiply it by; None when they are more than a unit."""
    unit = rest.strip().rstrip(".!;,").strip()
    if not unit:
        return 1
    touches_number = not rest[0].isspace()
    if (
        len(unit) > _MAX_UNIT_CHARACTERS
        or len(unit.split()) > _MAX_UNIT_WORDS
        or unit.startswith(_NOT_A_UNIT)
        or (touches_number and unit[0] in ",.:'-")
        or _SECOND_VALUE.search(unit)
        or any(character.isdecimal() for character in _UNIT_POWER.sub("", unit))
    ):
        return None
    return _SCALES.get(unit.split()[0].casefold(), 1)


def equal_to_two_decimals(left: Decimal, right: Decimal) -> bool:
    """Equality after rounding both to 2 decimals (half to even), as the published reward does."""
    with localcontext(prec=2 * _MAX_MAGNITUDE):
        return left.quantize(_CENTS) == right.quantize(_CENTS)


def relative_accuracy(given: Decimal, gold: Decimal) -> float:
    """`1 - min(1, |given - gold| / |gold|)`.

    Gold 0 has no relative error: exactly 0 scores 1, all else 0. (The published code's epsilon
    gives the right answer 0 there.)
    """
    if not gold:
        return 0.0 if given else 1.0
    with localcontext(prec=2 * _MAX_MAGNITUDE, Emax=999_999, Emin=-999_999):
        return float(1 - min(Decimal(1), abs(given - gold) / abs(gold)))
