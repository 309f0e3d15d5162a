"""Telegram through python-telegram-bot's `Bot`: its wire only, none of its update handling.

`adapter` is the port's implementation (lifecycle, sending); `polling` and `webhook` are the two ways in, both ending in
`feed`; `inbound` parses raw JSON, `render` formats replies and `split` cuts them; `menu` publishes the commands; `wire`
owns the SDK objects and says what each failure means; `hearing` is the account's own word on its health.

Nothing is imported here, so that parsing and formatting can be used without the SDK.
"""
