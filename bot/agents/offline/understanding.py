"""What a message asks of the built-in agent: patterns for English and German, several requests in one sentence.

Owns recognising. It is a table of patterns and no more: what it does not know it says, it never guesses.
Reads time zone files on the first use, so `understand` is run in a thread.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from bot.agents.offline.phrases import Language
from bot.agents.offline.sums import read_sum
from bot.tools.clock import find_zone

_MAX_TEXT_CHARS = 1000


@dataclass(frozen=True, slots=True)
class Sum:
    expression: str


@dataclass(frozen=True, slots=True)
class Time:
    place: str | None = None
    wants_date: bool = False


@dataclass(frozen=True, slots=True)
class Remember:
    name: str
    value: str
    is_sure: bool = True
    """The fact had a form we know (my … is …); else it is kept as a whole."""


@dataclass(frozen=True, slots=True)
class Recall:
    name: str | None = None
    is_sure: bool = True
    """It was asked for as something of the person's own; else ("what is the …") only as far as it is known."""


@dataclass(frozen=True, slots=True)
class Search:
    words: str


@dataclass(frozen=True, slots=True)
class Courtesy:
    phrase: str
    """`hello`, `thanks` or `farewell`."""


@dataclass(frozen=True, slots=True)
class Abilities:
    pass


@dataclass(frozen=True, slots=True)
class Unknown:
    pass


Intent = Sum | Time | Remember | Recall | Search | Courtesy | Abilities | Unknown


@dataclass(frozen=True, slots=True)
class Request:
    intent: Intent
    language: Language | None
    """The language it was said in; None where that does not show (`3*4`)."""


def understand(text: str, language: Language) -> tuple[Request, ...]:
    """Everything a message asks, in its order; a lone `Unknown` if nothing was recognised. `language` reads numbers."""
    if len(text) > _MAX_TEXT_CHARS:
        return (Request(Unknown(), _language_of(text)),)
    found: list[Request] = []
    left_over: list[str] = []
    fragments = list(_fragments(text))
    position = 0
    while position < len(fragments):
        fragment, end = fragments[position], position + 1
        request = _recognise(fragment.text, language)
        if request is None and found:
            request = _continue(found[-1], fragment.text, language)
        is_opening = request is None and _OPENING.fullmatch(fragment.text) is not None
        if is_opening or (request and isinstance(request.intent, Remember | Search)):
            # "remember that I like tea and, on Sundays, cake" is one fact; it ends where another request begins.
            whole = fragment.text
            while end < len(fragments):
                following = fragments[end].text
                is_first = is_opening and end == position + 1
                if not is_first and (_recognise(following, language) or _fact(following, is_strict=True)):
                    break
                whole += fragments[end - 1].separator + following
                end += 1
            request = _recognise(whole, language) or request
        if request:
            found.append(request)
        elif (rest := _bare(fragment.text)) and len(rest.split()) > 2:
            left_over.append(rest)
        position = end
    if left_over or not found:
        found.append(Request(Unknown(), _language_of(" ".join(left_over) or text)))
    return _without_small_talk(found)


def _without_small_talk(found: list[Request]) -> tuple[Request, ...]:
    """A greeting before a question needs no answer of its own."""
    serious = [request for request in found if not isinstance(request.intent, Courtesy)]
    return tuple(serious or found[:1])


@dataclass(frozen=True, slots=True)
class _Fragment:
    text: str
    separator: str


_SEPARATOR = re.compile(
    r"\s*[?!;\n]+\s*(?:(?:and|und)\s+)?|\.(?:\s+|$)|,\s+(?:(?:and|und|then|dann)\s+)?|\s+(?:and|und|then|dann)\s+",
    re.IGNORECASE,
)


def _fragments(text: str) -> Iterator[_Fragment]:
    """Pieces between separators, but none inside parentheses: max(1, 2)."""
    start = 0
    for separator in _SEPARATOR.finditer(text):
        piece = text[start : separator.start()]
        if piece.count("(") > piece.count(")"):
            continue
        if piece.strip():
            yield _Fragment(piece.strip(), separator[0])
        start = separator.end()
    if text[start:].strip():
        yield _Fragment(text[start:].strip(), "")


_LEAD = re.compile(
    r"(?:@\S+[,:]?|please|(?:can|could) you(?: please)?|would you|tell me|do you know|show me|ok(?:ay)?|so|also|and|then|bitte"
    r"|(?:kannst|könntest) du(?: mir)?(?: bitte)?(?: sagen)?|sage? mir|weißt du|zeige? mir|und|dann|hello|hi|hey|hallo|moin)"
    r"(?:[\s,:]+|$)",
    re.IGNORECASE,
)
_TRAIL = re.compile(
    r"[\s,]+(?:please|bitte|now|right now|currently|jetzt|gerade|today|heute|for me|für mich)$", re.IGNORECASE
)


def _bare(text: str) -> str:
    """Without the words that only make a request polite."""
    for pattern in (_LEAD, _TRAIL):
        while True:
            shorter = pattern.sub("", text, count=1) if pattern is _TRAIL or pattern.match(text) else text
            if shorter == text:
                break
            text = shorter
    return text.strip(" .,:")


def _recognise(text: str, language: Language) -> Request | None:
    for candidate in dict.fromkeys((text.strip(" .,:"), _bare(text))):
        for spoken, pattern, make in _PATTERNS:
            if (match := pattern.fullmatch(candidate)) and (intent := make(match)):
                return Request(intent, spoken)
        if asked := read_sum(candidate, language):
            expression, spoken_in = asked
            return Request(Sum(expression), spoken_in)
    for spoken, pattern in _GUESSES:
        if match := pattern.fullmatch(_bare(text)):
            return Request(Recall(match["name"], is_sure=False), spoken)
    return None


def _continue(previous: Request, text: str, language: Language) -> Request | None:
    """What a fragment means only after the one before it: `… in Tokyo and Berlin`, `… and my dog is Rex`."""
    del language
    if isinstance(previous.intent, Time):
        place = re.sub(r"^(?:in|at)\s+", "", _bare(text), flags=re.IGNORECASE)
        if place and find_zone(place):
            return replace(previous, intent=replace(previous.intent, place=place))
    if isinstance(previous.intent, Remember) and (fact := _fact(text, is_strict=True)):
        return replace(previous, intent=fact)
    if isinstance(previous.intent, Recall) and (
        match := re.fullmatch(r"(?:my|mein\w*) (.+)", _bare(text), re.IGNORECASE)
    ):
        return replace(previous, intent=Recall(match[1]))
    return None


_OPENING = re.compile(
    r"(?:bitte )?(?:merke?|notiere?)(?: dir)?(?: bitte)?|(?:please )?remember", re.IGNORECASE
)


# Facts


_MY = r"(?:my|our|mein\w{0,2}|unser\w{0,2})"
_FACTS = (
    # "dass meine Katze Mia heißt": the verb last
    rf"{_MY} (?P<name>\S+) (?P<value>.+?) (?:heißt|heisst|heißen|ist|sind|lautet)",
    rf"{_MY} (?P<name>.+?)(?:['’]s name)? (?:is called|is named|are called|are named|is|are|was) (?P<value>.+)",
    rf"{_MY} (?P<name>.+?) (?:heißt|heisst|heißen|ist|sind|lautet|war) (?P<value>.+)",
    r"(?P<name>i) (?:am called|am named) (?P<value>.+)",
    r"(?P<name>ich) (?:heiße|heisse) (?P<value>.+)",
    r"(?P<name>ich) (?P<value>.+) (?:heiße|heisse)",
)
_LOOSE_FACTS = (
    # "dass der Kaffeecode 4711 ist": the verb last
    r"(?:der|die|das) (?P<name>\S+) (?P<value>(?:(?!ist |sind |heißt |lautet ).)+?) (?:heißt|heisst|heißen|ist|sind|lautet)",
    r"(?:the |der |die |das )?(?P<name>[\w -]{1,40}?)(?: is| are| ist| sind| heißt| lautet|:| =) (?P<value>.+)",
)


def _fact(text: str, *, is_strict: bool) -> Remember | None:
    """`my cat is called Mia` as (cat, Mia). Strict: only where it says whose it is."""
    text = text.strip(" .,:!")
    for pattern in _FACTS if is_strict else (*_FACTS, *_LOOSE_FACTS):
        if match := re.fullmatch(pattern, text, re.IGNORECASE):
            name = {"i": "name", "ich": "Name"}.get(match["name"].lower(), match["name"])
            return Remember(name[:100], match["value"].strip(" .,!\"“”„'"))
    return None


def _remember(match: re.Match[str]) -> Remember | None:
    text = match["fact"].strip(" ,:")
    text = re.sub(r"^(?:that|dass|daß|this|folgendes)[\s:,]+", "", text, flags=re.IGNORECASE)
    if not text:
        return None
    return _fact(text, is_strict=False) or Remember(" ".join(text.split()[:5])[:60], text, is_sure=False)


# The table

_Make = Callable[[re.Match[str]], Intent | None]


def _time(match: re.Match[str]) -> Time:
    place = _TRAIL.sub("", match.groupdict().get("place") or "").strip(" .,?")
    return Time(re.sub(r"^the\s+", "", place) or None, wants_date="date" in match.groupdict())


_IN = r"(?: (?:in|at|for) (?P<place>.+?))?"
_NOW = r"(?: (?:right )?now| currently)?"
_JETZT = r"(?: jetzt| gerade)?"


def _named(match: re.Match[str]) -> Recall:
    return Recall(re.sub(r"^(?:the|der|die|das|den) ", "", match["name"], flags=re.IGNORECASE))


def _search(match: re.Match[str]) -> Search:
    return Search(match["words"].strip(" .\"“”„'"))


_WHAT = r"(?:what|who|when|where)"
_IS = r"(?:['’]?s| is| are| was)"
_CALLED = r"(?: called| named)?"
_HEISST = r"(?:heißt|heisst|heißen|ist|sind|war)"
_BOT = r"(?: bot| palaver)?"

_TABLE: tuple[tuple[_Make, tuple[tuple[Language, str], ...]], ...] = (
    (
        lambda _: Courtesy("hello"),
        (
            (
                "en",
                rf"(?:hello|hi|hey|greetings|good (?:morning|evening|afternoon|day))(?: there| all| everyone)?{_BOT}",
            ),
            (
                "de",
                rf"(?:hallo|moin|servus|grüezi|grüß (?:dich|gott)|guten (?:tag|morgen|abend))(?: zusammen)?{_BOT}",
            ),
        ),
    ),
    (
        lambda _: Courtesy("thanks"),
        (
            ("en", rf"(?:thanks|thank you|thx|cheers)(?: a lot| so much| very much)?{_BOT}"),
            ("de", rf"(?:danke|vielen dank|dankeschön)(?: dir| schön| sehr)?{_BOT}"),
        ),
    ),
    (
        lambda _: Courtesy("farewell"),
        (
            ("en", rf"(?:bye|goodbye|see you|good night){_BOT}"),
            ("de", rf"(?:tschüss|tschüß|ciao|auf wiedersehen|bis bald|gute nacht){_BOT}"),
        ),
    ),
    (
        lambda _: Abilities(),
        (
            (
                "en",
                r"help|what can (?:you|i) (?:do|ask)(?: here)?|what do you do|(?:who|what) are you|how do you work",
            ),
            ("de", r"hilfe|was kannst du(?: alles)?|was machst du|(?:wer|was) bist du|wie funktionierst du"),
        ),
    ),
    (
        _time,
        (
            ("en", rf"what time is it{_NOW}{_IN}{_NOW}"),
            ("en", rf"what time it is{_NOW}{_IN}"),
            ("en", rf"(?:what(?:['’]?s| is) )?(?:the )?(?:current )?(?:local )?time(?: is it)?{_NOW}{_IN}"),
            (
                "en",
                rf"(?:what(?:['’]?s| is) )?(?P<date>(?:the )?(?:current )?date|today['’]s date)(?: today)?{_IN}",
            ),
            ("en", rf"(?P<date>what (?:day|date) is (?:it|today))(?: today)?{_IN}"),
            ("de", rf"wie sp(?:ä|ae)t (?:ist es|haben wir es){_JETZT}{_IN}{_JETZT}"),
            ("de", rf"wie sp(?:ä|ae)t es{_JETZT}{_IN}{_JETZT} ist"),
            ("de", rf"wie ?viel uhr (?:ist|haben wir|es)(?: es)?{_JETZT}{_IN}(?: ist)?"),
            ("de", rf"(?:was ist |wie ist )?(?:die )?(?:aktuelle )?(?:uhrzeit|zeit){_IN}"),
            (
                "de",
                rf"(?P<date>welche[rns]? (?:tag|datum|wochentag) (?:ist|haben wir)(?: es)?(?: heute)?){_IN}",
            ),
            ("de", rf"(?P<date>datum|der wievielte ist(?: heute)?){_IN}"),
        ),
    ),
    (
        lambda _: Recall(),
        (
            ("en", r"what (?:do you|can you) (?:remember|know)(?: about (?:me|us))?"),
            ("en", r"what (?:have (?:i|we) told you|did (?:i|we) (?:tell|ask) you)(?: to remember)?"),
            (
                "de",
                r"was (?:hast du dir(?: alles)? gemerkt|weißt du(?: noch)?(?: über (?:mich|uns))?|merkst du dir)",
            ),
            ("de", r"woran erinnerst du dich"),
        ),
    ),
    (
        _named,
        (
            ("en", rf"{_WHAT}{_IS} {_MY} (?P<name>.+?)(?:['’]s name| called| named)?"),
            ("en", rf"what(?:['’]?s| is) the name of {_MY} (?P<name>.+)"),
            (
                "en",
                rf"(?:(?:do you )?(?:remember|know|recall) )?{_WHAT} {_MY} (?P<name>.+?) (?:is|are|was){_CALLED}",
            ),
            ("en", rf"(?:do you remember|recall)(?: {_MY})? (?P<name>.+)"),
            ("de", rf"wie (?:heißt|heisst|heißen|ist der name) {_MY} (?P<name>.+)"),
            ("de", rf"(?:wie|was|wer|wann|wo) {_MY} (?P<name>.+?) {_HEISST}"),
            ("de", rf"(?:was|wer|wann|wo|welche[rs]?) (?:ist|sind|war) {_MY} (?P<name>.+)"),
            ("de", rf"erinnerst du dich an (?:{_MY}|den|die|das) (?P<name>.+)"),
        ),
    ),
    (
        lambda match: Recall("Name" if match[0].lower().startswith(("wie", "wer")) else "name"),
        (("en", r"who am i"), ("de", r"wie hei(?:ß|ss)e ich|wer bin ich")),
    ),
    (
        _remember,
        (
            (
                "en",
                r"(?:remember|note|keep in mind|do not forget|don['’]t forget|memori[sz]e)(?P<fact>[\s:,]+.+)",
            ),
            ("de", r"(?:(?:merke?|notiere?)(?: dir)?(?: bitte)?|vergiss nicht)(?P<fact>[\s:,]+.+)"),
        ),
    ),
    (
        _search,
        (
            (
                "en",
                r"search(?: (?:our|the|this) (?:chat|conversation|history|messages))?(?: for)? (?P<words>.+)",
            ),
            ("en", r"(?:look (?:for|up)|find(?: messages (?:about|with|containing))?) (?P<words>.+)"),
            ("de", r"(?:suche?|finde|such)(?: nach(?:richten (?:mit|über))?)? (?P<words>.+)"),
        ),
    ),
)
_PATTERNS = tuple(
    (language, re.compile(pattern, re.IGNORECASE), make)
    for make, patterns in _TABLE
    for language, pattern in patterns
)
_GUESSES: tuple[tuple[Language, re.Pattern[str]], ...] = (
    ("en", re.compile(rf"{_WHAT}{_IS} the (?P<name>.+)", re.IGNORECASE)),
    ("en", re.compile(rf"{_WHAT} the (?P<name>.+?) (?:is|are|was)", re.IGNORECASE)),
    (
        "de",
        re.compile(
            rf"(?:wie|was|wer|wann|wo) (?:{_HEISST}|lautet) (?:der|die|das) (?P<name>.+)", re.IGNORECASE
        ),
    ),
    (
        "de",
        re.compile(
            rf"(?:wie|was|wer|wann|wo) (?:der|die|das) (?P<name>.+?) (?:{_HEISST}|lautet)", re.IGNORECASE
        ),
    ),
)
"""Questions that may be about something remembered. Tried last, and answered only if it is."""


# Languages


_GERMAN_WORDS = frozenset(
    "ist und wie was der die das ich nicht kannst bitte ein eine mir mich du wo wer warum wann sind mein auf mit für".split()
)
_ENGLISH_WORDS = frozenset(
    "is and how what the i not can please a an me you where who why when are my of on with for to do does".split()
)


def _language_of(text: str) -> Language | None:
    words = re.findall(r"\w+", text.lower())
    german = sum(word in _GERMAN_WORDS for word in words) + len(re.findall("[äöüß]", text))
    english = sum(word in _ENGLISH_WORDS for word in words)
    if german == english:
        return None
    return "de" if german > english else "en"
