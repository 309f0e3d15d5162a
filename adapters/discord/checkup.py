"""Whose token an account has: one `GET /users/@me`, without a connection to the gateway.

Owns the words for `palaver doctor`; the adapter itself logs in and goes on trying.
"""

from discord.http import Route

from adapters.checkup import get_json
from adapters.discord.adapter import TOKEN_HINT
from adapters.errors import StartError, Unreachable
from config.names import AccountId
from config.settings import AccountSettings


async def check_up(account: AccountId, settings: AccountSettings) -> str:
    """What Discord says of the account. Raises: StartError for a token it does not take, Unreachable."""
    token = settings.token.get_secret_value().strip() if settings.token else ""
    if not token:
        raise StartError(account, "no token is set", TOKEN_HINT)
    headers = {
        "authorization": f"Bot {token}",
        "user-agent": "DiscordBot (palaver, 1)",  # Discord's front refuses clients that do not say so
    }
    status, me = await get_json(
        account, f"{settings.api_url or Route.BASE}/users/@me", secret=token, headers=headers
    )
    if status == 401:
        raise StartError(account, "Discord refused this token (401)", TOKEN_HINT)
    if status != 200 or not isinstance(me, dict) or "id" not in me:
        raise Unreachable(account, f"Discord answered {status} without saying who the bot is")
    return f"the token is {me.get('username', '?')}'s (id {me['id']})"
