"""The catalogue of sentences that people see, in their language.

Owns loading `texts/<language>.toml`, an operator's replacements, and filling in. No sentence for people stands anywhere else.
"""

import string
import tomllib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path

LANGUAGES = ("en", "de")


class CatalogueError(ValueError):
    """An operator's file of texts has a mistake; the message names file and text."""


class Catalogue:
    """Sentences by language and name."""

    def __init__(self, texts: Mapping[str, Mapping[str, str]], default: str) -> None:
        self._texts = texts
        self._default = default

    def language(self, tag: str | None) -> str:
        """The catalogue's language for a platform's tag (`de-AT` gives `de`), or the default one."""
        base = (tag or "").lower().replace("_", "-").partition("-")[0]
        return base if base in self._texts else self._default

    def say(self, name: str, language: str | None = None, /, **values: object) -> str:
        """A sentence. Raises: KeyError for a name the catalogue does not have."""
        return self._texts[self.language(language)][name].format(**values)

    def texts(self, language: str) -> Mapping[str, str]:
        """All sentences of a language, not filled in."""
        return self._texts[language]

    def has(self, name: str) -> bool:
        return name in self._texts[self._default]


def load(default: str = "en", folder: Path | None = None) -> Catalogue:
    """The shipped sentences with those in `folder` in their place.

    Raises: CatalogueError for a missing folder, an unknown name, or braces that the shipped sentence does not have.
    """
    if folder is not None and not folder.is_dir():
        msg = f"texts: there is no folder {folder}"
        raise CatalogueError(msg)
    texts: dict[str, dict[str, str]] = {}
    for language in LANGUAGES:
        shipped = resources.files("bot.texts").joinpath(f"{language}.toml").read_text(encoding="utf-8")
        texts[language] = tomllib.loads(shipped)
        own = folder / f"{language}.toml" if folder else None
        if own is not None and own.exists():
            texts[language].update(_read_own(own, texts[language]))
    return Catalogue(texts, default)


def _read_own(file: Path, shipped: Mapping[str, str]) -> dict[str, str]:
    try:
        own = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeError, tomllib.TOMLDecodeError) as error:
        msg = f"{file}: {error}"
        raise CatalogueError(msg) from error
    for name, text in own.items():
        if name not in shipped:
            msg = f"{file}: there is no text called {name}"
            raise CatalogueError(msg)
        if not isinstance(text, str):
            msg = f"{file}: {name} must be a text"
            raise CatalogueError(msg)
        try:
            unknown = fields(text) - fields(shipped[name])
            if not unknown:
                text.format(**dict.fromkeys(fields(text), ""))  # a mistake shows here, not before a person
        except (ValueError, LookupError, AttributeError) as error:
            msg = f"{file}: {name}: {error}"
            raise CatalogueError(msg) from error
        if unknown:
            msg = f"{file}: {name} uses {{{min(unknown)}}}, which is not filled in here"
            raise CatalogueError(msg)
    return own


def fields(text: str) -> set[str]:
    """The words in braces."""
    return {field for _, field, _, _ in string.Formatter().parse(text) if field is not None}
