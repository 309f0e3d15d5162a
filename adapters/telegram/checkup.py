"""Whose token an account has: one `getMe`, which takes no update away from a daemon that runs.

Owns the words for `palaver doctor`; the adapter itself asks in its own way and goes on asking.
"""

from adapters.checkup import get_json
from adapters.errors import StartError, Unreachable
from adapters.telegram.hearing import TOKEN_HINT
from adapters.telegram.wire import PUBLIC_API_URL
from config.names import AccountId
from config.settings import AccountSettings


async def check_up(account: AccountId, settings: AccountSettings) -> str:
    """What Telegram says of the account. Raises: StartError for a token it does not take, Unreachable."""
    token = settings.token.get_secret_value().strip() if settings.token else ""
    if not token:
        raise StartError(account, "no token is set", TOKEN_HINT.partition(". ")[2])
    status, answer = await get_json(
        account, f"{settings.api_url or PUBLIC_API_URL}/bot{token}/getMe", secret=token
    )
    if status in (401, 404):  # 404: not even the form of a token
        raise StartError(account, f"Telegram refused this token ({status})", TOKEN_HINT.partition(". ")[2])
    me = answer.get("result") if isinstance(answer, dict) else None
    if status != 200 or not isinstance(me, dict) or "id" not in me:
        raise Unreachable(account, f"Telegram answered {status} without saying who the bot is")
    return f"the token is @{me.get('username', '?')}'s (id {me['id']})"
