"""Whose token an account has, and whether it may read what it wants to: two requests, no connection to the gateway.

Owns the words for `palaver doctor`; the adapter itself logs in and goes on trying.
"""

from discord.http import Route

from adapters.checkup import get_json
from adapters.discord.adapter import INTENT_HINT, TOKEN_HINT
from adapters.errors import StartError, Unreachable
from config.names import AccountId
from config.settings import AccountSettings

MAY_READ_CONTENT = 1 << 18 | 1 << 19
"""Flags of an application that may: a reviewed one, and one that is in few servers. Source: Discord reference, Application
Flags."""


async def check_up(account: AccountId, settings: AccountSettings) -> str:
    """What Discord says of the account.

    Raises: StartError for a token it does not take, or a message content intent that is wanted and not granted; Unreachable.
    """
    token = settings.token.get_secret_value().strip() if settings.token else ""
    if not token:
        raise StartError(account, "no token is set", TOKEN_HINT)
    headers = {
        "authorization": f"Bot {token}",
        "user-agent": "DiscordBot (palaver, 1)",  # Discord's front refuses clients that do not say so
    }
    root = settings.api_url or Route.BASE
    status, me = await get_json(account, f"{root}/users/@me", secret=token, headers=headers)
    if status == 401:
        raise StartError(account, "Discord refused this token (401)", TOKEN_HINT)
    if status != 200 or not isinstance(me, dict) or "id" not in me:
        raise Unreachable(account, f"Discord answered {status} without saying who the bot is")
    whose = f"the token is {me.get('username', '?')}'s (id {me['id']})"
    if settings.message_content:
        _, application = await get_json(account, f"{root}/applications/@me", secret=token, headers=headers)
        if _is_content_withheld(application):
            raise StartError(account, f"{whose}, but it may not read everything", INTENT_HINT)
    return whose


def _is_content_withheld(application: object) -> bool:
    """Whether Discord says so; an answer without flags says nothing."""
    raw = application.get("flags") if isinstance(application, dict) else None
    if not isinstance(raw, int):
        return False
    return not raw & MAY_READ_CONTENT
