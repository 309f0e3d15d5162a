"""Arithmetic in words: "what is 15% of 80", "wie viel ist 3,5 mal 2", and expressions as they are.

Owns turning words and national ways of writing numbers into what the calculator reads.
"""

import re

from bot.agents.offline.phrases import Language
from bot.tools.calculator import CannotCalculate, evaluate

_SUM_LEADS: tuple[tuple[Language, str], ...] = (
    ("en", r"(?:what(?:['’]?s| is| are)|how much (?:is|are)|calculate|compute|work out|solve)\s+"),
    (
        "de",
        r"(?:was (?:ist|sind|ergibt|macht)|wie ?viel (?:ist|sind|ergibt|macht|gibt)|rechne(?: aus)?|berechne|rechne mir)\s+",
    ),
)
_OPERATOR_WORDS: tuple[tuple[Language | None, str, str], ...] = (
    ("en", r"(?:the )?square root of (\d[\d.,]*)", r"sqrt(\1)"),
    ("de", r"(?:die )?(?:quadrat)?wurzel (?:aus|von) (\d[\d.,]*)", r"sqrt(\1)"),
    ("en", r"(\d[\d.,]*) ?(?:%|percent|per cent) of\b", r"\1/100*"),
    ("de", r"(\d[\d.,]*) ?(?:%|prozent) von\b", r"\1/100*"),
    ("en", r"\b(?:multiplied by|times)\b", "*"),
    ("de", r"\b(?:multipliziert mit|mal)\b", "*"),
    ("en", r"\b(?:divided by|over)\b", "/"),
    ("de", r"\b(?:geteilt durch|durch)\b", "/"),
    ("en", r"\bto the power of\b", "^"),
    ("de", r"\bhoch\b", "^"),
    ("en", r"\bsquared\b", "^2"),
    ("en", r"\bcubed\b", "^3"),
    (None, r"\bplus\b", "+"),
    (None, r"\bminus\b", "-"),
    (None, r"\bmod(?:ulo)?\b", "%"),
    (None, r"(?<=\d)\s*x\s*(?=\d)", "*"),
)


def read_sum(text: str, language: Language) -> tuple[str, Language | None] | None:
    """The expression that a text asks for and the language it was said in; None if it is no sum. `language` reads numbers."""
    spoken: Language | None = None
    for lead_language, lead in _SUM_LEADS:
        if match := re.match(lead, text, re.IGNORECASE):
            spoken, text = lead_language, text[match.end() :]
            break
    is_asked = spoken is not None
    for word_language, pattern, sign in _OPERATOR_WORDS:
        text, count = re.subn(pattern, sign, text, flags=re.IGNORECASE)
        spoken = spoken or (word_language if count else None)
    expression = _with_decimal_points(text.strip(" =."), spoken or language)
    if not re.search(r"\d|π|\bpi\b|\be\b", expression):
        return None
    if not is_asked and (
        not re.search(r"\d\s*[-+*/^%×·÷(]|[a-z]\(", expression) or _DATE.fullmatch(expression)
    ):
        return None
    if re.search(r"[A-Za-z]", re.sub(r"\b(?:[a-z]+\d*(?=\()|pi|e|tau|\d+e\d+)\b", "", expression)):
        return None
    try:
        evaluate(expression)
    except CannotCalculate as error:
        # Arithmetic with no result (1/0) is still a sum; what cannot be read as arithmetic is something else.
        if "result" not in str(error) and "real" not in str(error):
            return None
    return expression, spoken


_DATE = re.compile(r"\d{4}-\d{1,2}-\d{1,2}|\d{1,2}/\d{1,2}/\d{2,4}|\+?\d[\d /-]*-[\d /-]*-[\d /-]*")


def _with_decimal_points(text: str, language: Language) -> str:
    """1.234,5 as 1234.5 in German; 1,234.5 as 1234.5 in English."""
    if language == "de":
        text = re.sub(
            r"\b\d{1,3}(?:\.\d{3})+(?=,\d|\b(?!\.?\d))", lambda match: match[0].replace(".", ""), text
        )
        return re.sub(r"(?<=\d),(?=\d)", ".", text)
    return re.sub(r"(?<![\d(])\b\d{1,3}(?:,\d{3})+\b", lambda match: match[0].replace(",", ""), text)
