"""Every sentence of the built-in agent, English and German.

Owns words only; which sentence fits is decided in `agent`.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

Language = Literal["en", "de"]

MODEL_HINT = "OPENAI_API_KEY"
"""Part of the long answer in every language; finding it in the conversation means that the person was told already."""

_ENGLISH = {
    "sum_is": "{expression} = {value}.",
    "only_value": "{value}.",
    "cannot_calculate": "{reason}",
    "time_at": "In {place} it is {time} on {weekday}.",
    "time_here": "It is {time} on {weekday}.",
    "date_at": "In {place} it is {weekday}, {day} {month} {year}.",
    "date_here": "It is {weekday}, {day} {month} {year}.",
    "unknown_place": "I do not know where {place} is. Try a large city nearby, or a time zone such as Asia/Tokyo.",
    "remembered": "I will remember: {name}: {value}.",
    "remembered_whole": "I will remember: {value}.",
    "recalled": "{value}.",
    "recalled_line": "- {name}: {value}",
    "recalled_whole": "- {value}",
    "recalled_all": "This is what I remember:",
    "nothing_named": "I do not remember anything about “{name}”. Tell me with “remember that my {name} is …”.",
    "nothing_remembered": "I do not remember anything yet. Tell me with “remember that my cat is called Mia”.",
    "found_one": "One message with “{words}”:",
    "found_many": "{count} messages with “{words}”, newest first:",
    "found_line": "- {time}: {text}",
    "found_nothing": "No earlier message here holds “{words}”.",
    "tool_failed": "That did not work: {reason}",
    "tool_missing": "I cannot do that here: the tool “{name}” is not enabled.",
    "hello": "Hello.",
    "hello_name": "Hello, {name}.",
    "ask_me": "Ask me a sum or the time somewhere, or what I can do.",
    "thanks": "You are welcome.",
    "farewell": "Goodbye.",
    "farewell_name": "Goodbye, {name}.",
    "abilities": (
        "By myself I can do sums (17 + 25), tell the time (what time is it in Tokyo), remember things (remember that my cat is"
        " called Mia; what is my cat called) and search this conversation (search for cat)."
    ),
    "connect": (
        "For everything else a model has to be connected: whoever runs me sets OPENAI_API_KEY, or agent.base_url and agent.model."
    ),
    "no_model": "No model is connected, so I have no answer to that.",
    "no_model_again": "I have no answer to that without a model. I can do sums, tell the time, remember, recall and search.",
    "no_text": "I can only read text, and this message has none.",
}

_GERMAN = {
    "sum_is": "{expression} = {value}.",
    "only_value": "{value}.",
    "cannot_calculate": "Das lässt sich nicht berechnen.",
    "time_at": "In {place} ist es {time} Uhr am {weekday}.",
    "time_here": "Es ist {time} Uhr am {weekday}.",
    "date_at": "In {place} ist {weekday}, der {day}. {month} {year}.",
    "date_here": "Heute ist {weekday}, der {day}. {month} {year}.",
    "unknown_place": "Ich weiß nicht, wo {place} liegt. Nenne eine große Stadt in der Nähe oder eine Zeitzone wie Asia/Tokyo.",
    "remembered": "Ich merke mir: {name}: {value}.",
    "remembered_whole": "Ich merke mir: {value}.",
    "recalled": "{value}.",
    "recalled_line": "- {name}: {value}",
    "recalled_whole": "- {value}",
    "recalled_all": "Das habe ich mir gemerkt:",
    "nothing_named": "Zu „{name}“ habe ich mir nichts gemerkt. Sag es mir mit „merke dir, dass …“.",
    "nothing_remembered": "Ich habe mir noch nichts gemerkt. Sag es mir mit „merke dir, dass meine Katze Mia heißt“.",
    "found_one": "Eine Nachricht mit „{words}“:",
    "found_many": "{count} Nachrichten mit „{words}“, die neueste zuerst:",
    "found_line": "- {time}: {text}",
    "found_nothing": "Keine frühere Nachricht hier enthält „{words}“.",
    "tool_failed": "Das hat nicht geklappt: {reason}",
    "tool_missing": "Das kann ich hier nicht: Das Werkzeug „{name}“ ist nicht eingeschaltet.",
    "hello": "Hallo.",
    "hello_name": "Hallo {name}.",
    "ask_me": "Frag mich eine Rechnung oder die Uhrzeit irgendwo, oder was ich kann.",
    "thanks": "Gern geschehen.",
    "farewell": "Bis bald.",
    "farewell_name": "Bis bald, {name}.",
    "abilities": (
        "Allein kann ich rechnen (17 + 25), die Uhrzeit sagen (wie spät ist es in Tokio), mir etwas merken (merke dir, dass meine"
        " Katze Mia heißt; wie heißt meine Katze) und dieses Gespräch durchsuchen (suche nach Katze)."
    ),
    "connect": (
        "Für alles andere muss ein Modell verbunden sein: Wer mich betreibt, setzt OPENAI_API_KEY, oder agent.base_url und"
        " agent.model."
    ),
    "no_model": "Es ist kein Modell verbunden, darauf habe ich also keine Antwort.",
    "no_model_again": (
        "Darauf habe ich ohne Modell keine Antwort. Ich kann rechnen, die Uhrzeit sagen, mir etwas merken und suchen."
    ),
    "no_text": "Ich kann nur Text lesen, und in dieser Nachricht ist keiner.",
}

PHRASES: Mapping[Language, Mapping[str, str]] = MappingProxyType({"en": _ENGLISH, "de": _GERMAN})

WEEKDAYS: Mapping[Language, tuple[str, ...]] = MappingProxyType(
    {
        "en": ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"),
        "de": ("Montag", "Dienstag", "Mittwoch", "Donnerstag", "Freitag", "Samstag", "Sonntag"),
    }
)

MONTHS: Mapping[Language, tuple[str, ...]] = MappingProxyType(
    {
        "en": tuple(
            "January February March April May June July August September October November December".split()
        ),
        "de": tuple(
            "Januar Februar März April Mai Juni Juli August September Oktober November Dezember".split()
        ),
    }
)
