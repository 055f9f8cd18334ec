"""Numbers in answers: one number, with or without a unit; anything that could be two is none."""

import re
import unicodedata
from decimal import Decimal, localcontext

from judges.scoring.text import bare_answer

_MAX_CHARACTERS = 1_000
_MAX_UNIT_CHARACTERS = 40
_MAX_UNIT_WORDS = 4
_MAX_MAGNITUDE = 300  # powers of ten: beyond it a float is infinite or 0
_CENTS = Decimal("0.01")

_NUMBER = re.compile(
    r"""(?:(?:about|approximately|approx\.?|around|roughly|[~≈=])\s*)?
    (?P<sign>[+-]?)(?:(?:US)?[$€£¥₹]\s?)?(?P<inner_sign>[+-]?)
    (?P<digits>[1-9][0-9]{0,2}(?:,[0-9]{3})+(?:\.[0-9]+)?|[0-9]+(?:\.[0-9]*)?|\.[0-9]+|(?=[¼-¾⅐-⅞]))
    (?:[eE](?P<exponent>[+-]?[0-9]{1,4})(?![0-9]))?
    (?P<fraction>\s?[¼-¾⅐-⅞])?
    (?:\s*[/⁄]\s*(?P<divisor>[0-9]+(?:\.[0-9]+)?))?
    (?P<rest>.*)\Z""",
    re.VERBOSE | re.DOTALL | re.IGNORECASE,
)
_LATEX_FRACTION = re.compile(r"\\[dt]?frac\s*\{\s*([0-9]+)\s*\}\s*\{\s*([0-9]+)\s*\}")
_MIXED_FRACTION = re.compile(r"(?<=[0-9])\s*(?=\\[dt]?frac)")  # `2\frac{1}{2}` is not 21/2
_IN_BRACKETS = re.compile(r"\(([^()]*)\)\.?")
_MONEY = re.compile(r"\s*(?:US)?[$€£¥₹](?!.*[$]\s*\Z)", re.DOTALL)
# Digits that belong to a unit: m2, s^-1, cm^{3}; not those of `1h5m`, `2x3`, `3k2`, `2e3e2`.
_UNIT_POWER = re.compile(r"(?<=[^\W\d_eEhHkKxX])\^?\{?-?[1-4]\}?(?!\w)")
# What touches a number and neither scales it nor is a unit: factors, `1M2`, `5MM`, `3kk`, `1.2b`.
_NO_UNIT_THAT_TOUCHES = re.compile(r"[xXBMT]\s?[0-9]|MM\b|kk\b|b\b")
_OTHER_THAN_TEXT = re.compile(
    r"\\(?!text|math|mbox|operatorname|circ\b|degree|mu\b|Omega\b|si\b|SI\b|unit|q?quad\b|[%,;!: ])"
)
_NOT_A_UNIT = tuple("^√π×*·+=<>±/⁰¹²³⁴⁵⁶⁷⁸⁹")
_SECOND_VALUE = re.compile(
    r"\b(?:or|and|not|to|half|plus|minus|squared|cubed|at (?:least|most))\b", re.IGNORECASE
)
_WORDS_OF_SCALE = {
    12: ("dozen",),
    100: ("hundred", "百", "백"),
    1_000: (
        *(
            "thousand",
            "tsd",
            "k",
            "千",
            "천",
            "tausend",
            "duizend",
            "tusen",
            "mille",
            "mila",
            "тыс",
        ),
        *(
            "тысяч",
            "тысячи",
            "tys",
            "tysięcy",
            "ribu",
            "nghìn",
            "ngàn",
            "हज़ार",
            "हजार",
            "ألف",
            "آلاف",
        ),
    ),
    10_000: ("万", "萬", "만"),
    100_000: ("lakh", "lac", "लाख"),
    1_000_000: (
        *(
            "million",
            "mn",
            "mln",
            "mio",
            "百万",
            "百萬",
            "millionen",
            "millón",
            "millones",
            "milhão",
        ),
        *("milhões", "milione", "milioni", "miljoen", "miljoner", "milyon", "juta", "triệu", "млн"),
        *("миллион", "миллиона", "миллионов", "مليون", "ملايين"),
    ),
    10_000_000: ("crore", "千万", "千萬", "करोड़"),
    100_000_000: ("亿", "億", "억"),
    1_000_000_000: (
        *(
            "billion",
            "bn",
            "bln",
            "十亿",
            "十億",
            "mrd",
            "mld",
            "milliarde",
            "milliarden",
            "milliard",
        ),
        *("miliardo", "miliardi", "miljard", "miljarder", "milyar", "miliar", "bilhão", "bilhões"),
        *("tỷ", "млрд", "миллиард", "миллиарда", "миллиардов", "مليار"),
    ),
    1_000_000_000_000: ("trillion", "tn", "trn", "万亿", "万億"),
}
_SCALES = {word: scale for scale, words in _WORDS_OF_SCALE.items() for word in words}
# Behind a blank these are units (kelvin, metres, bytes, tonnes); glued to a number they scale it.
_GLUED_SCALES = {"k": 10**3, "K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}
_MONEY_SCALES = _GLUED_SCALES | {"m": 10**6, "b": 10**9}
# A million in one country, 10^12 in another; a thousand or a million; parts.
_OTHER_THAN_ONE_SCALE = (
    *(
        "兆",
        "mil ",
        "grand",
        "half",
        "halves",
        "quarter",
        "third",
        "tenth",
        "tens ",
        "score ",
        "gross ",
    ),
    *(
        "myriad",
        "bin ",
        "십",
        "十 ",
        "billionen",
        "billone",
        "billón",
        "bilion",
        "billiard",
        "trillionen",
    ),
    *("trillón", "trillone", "quadrillion", "quintillion", "zillion"),
)
_PARTS = re.compile(r"(?:dred|sand|lion)ths?\b", re.IGNORECASE)
_CURRENCIES = frozenset({"usd", "eur", "gbp", "inr", "rmb", "cny", "dollars", "euros", "us"})
_KILO = re.compile("千[米克瓦卡帕赫伏字]")
_SCALE_IN_FRONT = re.compile("|".join(sorted(filter(str.isalpha, _SCALES), key=len, reverse=True)))


def read_number(text: str) -> Decimal | None:
    """The one number that `text` states, its unit left off; None when there is none or a choice.

    Read: `1,200.50`, `$5`, `45%` (as 45), `3/4` (as 0.75), `1½`, `(5)`, `1e3`, `−2`, `12 cm`,
    `2 million`, `3k`, `1.2B`, `5 lakh`, `3万`; `300 K` and `3 m` are 300 and 3 with a unit.
    Refused: words (`three`), ranges, decimal commas (`1,5`, `0,500`), powers and products (`10^2`,
    `2x3`), two units (`1h5m`), NaN, infinities, more than 10^300.
    """
    if len(text) > _MAX_CHARACTERS:
        return None
    text = text.replace("\\$", "$")
    bare = _LATEX_FRACTION.sub(r"\1/\2", _MIXED_FRACTION.sub(" ", bare_answer(text)))
    if inside := _IN_BRACKETS.fullmatch(bare):
        bare = inside[1]
    match = _NUMBER.match(bare)
    if match is None or (match["sign"] and match["inner_sign"]):
        return None
    scale = _unit_scale(match["rest"], is_money=bool(_MONEY.match(text)))
    if scale is None or (match["fraction"] and (match["exponent"] or "." in match["digits"])):
        return None
    with localcontext(prec=2 * _MAX_MAGNITUDE, Emax=999_999, Emin=-999_999):
        exponent = match["exponent"] or "0"
        number = Decimal(f"{match['digits'].replace(',', '') or '0'}e{exponent}")
        number = (number + _fraction(match["fraction"])) * scale
        if match["divisor"]:
            divisor = Decimal(match["divisor"])
            if not divisor:
                return None
            number /= divisor
        if number and abs(number.adjusted()) > _MAX_MAGNITUDE:
            return None
        return -number if "-" in (match["sign"], match["inner_sign"]) else number


def _fraction(sign: str | None) -> Decimal:
    """`½` -> 0.5; nothing is 0."""
    if sign is None:
        return Decimal(0)
    above, below = unicodedata.normalize("NFKC", sign.strip()).split("\u2044")
    return Decimal(above) / Decimal(below)


def _unit_scale(rest: str, *, is_money: bool) -> int | None:
    """What the words after the number multiply it by; None when they are more than a unit."""
    unit = rest.strip().rstrip(".!;,").strip()
    if not unit:
        return 1
    touches_number = not rest[0].isspace()
    if (
        len(unit) > _MAX_UNIT_CHARACTERS
        or len(unit.split()) > _MAX_UNIT_WORDS
        or f"{unit} ".casefold().startswith((*_NOT_A_UNIT, *_OTHER_THAN_ONE_SCALE))
        or _PARTS.search(unit)
        or _OTHER_THAN_TEXT.search(unit)
        or (touches_number and _NO_UNIT_THAT_TOUCHES.match(unit))
        or (touches_number and unit[0] in ",.:'-")
        or _SECOND_VALUE.search(unit)
        or any(map(_is_numeral, _UNIT_POWER.sub("", _without_scales(unit))))
    ):
        return None
    scale, words = 1, unit.split()
    glued = _MONEY_SCALES if is_money else _GLUED_SCALES if touches_number else {}
    if words[0].rstrip(".") in glued:
        scale = glued[words.pop(0).rstrip(".")]
    for word in words:
        if word.casefold() in _CURRENCIES:
            continue
        if (found := _scale_of(word)) is None:
            break
        scale *= found
    return scale


def _is_numeral(character: str) -> bool:
    """`5`, `½`, `三`; not `²`, which belongs to a unit."""
    return character.isdecimal() or (character.isnumeric() and not character.isdigit())


def _scale_of(word: str) -> int | None:
    """`million`, `Millions`, `bn.` and `万` (also before a unit: `万人`) by their factor."""
    plain = word.rstrip(".,").casefold()
    scale = _SCALES.get(plain) or (len(plain) > 3 and _SCALES.get(plain.removesuffix("s"))) or None
    if _KILO.match(plain) or word == "K":  # kilometres, kelvin
        return None
    if scale is None and (found := _SCALE_IN_FRONT.match(plain)) and not found[0].isascii():
        scale = _SCALES[found[0]]
    return scale


def _without_scales(unit: str) -> str:
    """Signs like 万 are numerals to Unicode."""
    return _SCALE_IN_FRONT.sub("", unit)


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
