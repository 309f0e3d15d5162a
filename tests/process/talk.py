"""What people say in fault tests: messages with markers, in the mix that reaches every phase of a turn.

Owns the words and the book of what was said; what must have become of it is `invariants.py`.
"""

import asyncio
import random
import time
from collections.abc import Mapping, Sequence

from tests.process.counterparties import Chat, Counterparty
from tests.process.daemon import Daemon, NotReady
from tests.process.invariants import FILLER, Said, is_idle, unanswered


class Talk:
    """People in some chats, and the book of what they said."""

    def __init__(self, people: Counterparty, chats: Sequence[Chat]) -> None:
        self.people = people
        self.chats = chats
        self.said: list[Said] = []
        self._last = 0

    @classmethod
    async def begin(cls, people: Counterparty, sessions: int) -> "Talk":
        return cls(people, [await people.open_chat(number) for number in range(1, sessions + 1)])

    async def say(
        self, chat: Chat | None = None, script: str = "", *, words: str = FILLER, is_long: bool = False
    ) -> Said:
        """One message; `script` are directives of the scripted agent."""
        chat = chat or self.chats[0]
        self._last += 1
        number = self._last
        text = f"{script} #{number} {words}".strip()
        if is_long:
            end = f"\nend-of-{number}"
            length = self.people.platform.longest_text
            line = f"{FILLER} " * 8 + "\n"
            text = (text + "\n" + line * (length // len(line) + 1))[: length - len(end)] + end
        message_id = await self.people.say(chat, text)
        said = Said(chat, message_id, number, tool_calls=script.count("tool="), has_tail=is_long)
        self.said.append(said)
        return said

    async def say_something(self, rng: random.Random) -> Said:
        """A message of the mix: plain, slow, with tools, growing on the screen, of several pieces."""
        chat = rng.choice(self.chats)
        kind = rng.random()
        if kind < 0.3:
            return await self.say(chat)
        if kind < 0.45:
            return await self.say(chat, f"delay={rng.uniform(0, 0.15):.3f}")
        if kind < 0.6:
            return await self.say(chat, "tool=clock")
        if kind < 0.7:
            return await self.say(
                chat, f'delay={rng.uniform(0, 0.1):.3f} tool=clock tool=calculator:{{"expression":"1+1"}}'
            )
        if kind < 0.88:
            return await self.say(chat, "pace=0.03", words=f"{FILLER} " * rng.randint(10, 30))
        return await self.say(chat, rng.choice(["", "pace=0.001"]), is_long=True)

    async def shown(self) -> Mapping[str, Sequence[str]]:
        return {chat.channel: await self.people.shown(chat) for chat in self.chats}

    async def missing(self) -> list[Said]:
        return unanswered(self.said, await self.shown())

    async def wait_answered(self, daemon: Daemon, *, timeout_s: float) -> None:
        """Until everybody has seen every reply and the daemon has nothing left to do. Raises: NotReady."""
        deadline = time.monotonic() + timeout_s
        while True:
            missing = await self.missing()
            if not missing and is_idle(daemon.database):
                return
            if time.monotonic() > deadline:
                numbers = ", ".join(f"#{one.number}" for one in missing[:20]) or "none; it is not idle"
                raise NotReady(f"unanswered after {timeout_s:g} s: {numbers}\n{daemon.tail()}")
            if not daemon.is_running:
                raise NotReady(f"the daemon ended with {daemon.returncode}\n{daemon.tail()}")
            await asyncio.sleep(0.05)
