"""What people see of a stream of text: no thinking, no halves of characters, nothing twice after a retry."""

_OPEN, _CLOSE = "<think>", "</think>"


class AnswerText:
    """The text of one answer as it arrives; each method gives what may be shown next."""

    def __init__(self) -> None:
        self._shown: list[str] = []
        self._held = ""
        self._state = "start"  # start: may still be a <think>; inside one; open: ordinary text

    @property
    def text(self) -> str:
        return "".join(self._shown).strip()

    def feed(self, piece: str) -> str:
        self._held += piece
        while self._state != "open":
            if self._state == "inside":
                _, closing, rest = self._held.partition(_CLOSE)
                if not closing:
                    self._held = self._held[
                        -len(_CLOSE) :
                    ]  # a closing tag may have begun; the thought is not kept
                    return ""
                self._held, self._state = rest, "start"
            self._held = self._held.lstrip()
            if self._held.startswith(_OPEN):
                self._held, self._state = self._held[len(_OPEN) :], "inside"
            elif _OPEN.startswith(self._held):
                return ""
            else:
                self._state = "open"
        # Servers that escape every non-ASCII letter may cut an emoji into two halves.
        keep = 1 if "\ud800" <= self._held[-1:] <= "\udbff" else 0
        ready, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return self._show(ready)

    def finish(self) -> str:
        """What was held back and turned out to be text."""
        ready, self._held = self._held, ""
        return "" if self._state == "inside" else self._show(ready)

    def _show(self, ready: str) -> str:
        whole = ready.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").replace("\x00", "")
        if whole:
            self._shown.append(whole)
        return whole


class Preview:
    """What the person was shown of an answer; a second try shows only what goes on from there."""

    def __init__(self) -> None:
        self._shown = ""
        self._offset = 0
        self._has_diverged = False

    def restart(self) -> None:
        self._offset = 0
        self._has_diverged = False

    def show(self, piece: str) -> str:
        """The part of the next piece that is new. Nothing more once a retry says something else: the final text wins."""
        if self._has_diverged:
            return ""
        known = self._shown[self._offset : self._offset + len(piece)]
        if not piece.startswith(known):
            self._has_diverged = True
            return ""
        new = piece[len(known) :]
        self._offset += len(piece)
        self._shown += new
        return new
