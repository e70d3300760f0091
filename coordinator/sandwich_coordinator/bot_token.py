"""A bot's token as an operator gives it, before it is sealed. Pure; no message contains a token."""

import re

_FORM = re.compile(r"(?:Bot )?[\w-]{18,}\.[\w-]{4,}\.[\w-]{16,}", re.IGNORECASE)


def looks_like_token(text: str) -> bool:
    """Whether a text that should be something else has the form of a token: no message may repeat it."""
    return _FORM.fullmatch(text.strip()) is not None


def check_token(token: str) -> tuple[str, str | None]:
    """A bot token as used, and a warning about its form. Raises ValueError; never shows the token."""
    warning = None
    if token[:4].lower() == "bot ":
        token, warning = token[4:].strip(), "the token starts with 'Bot ': that prefix was left out"
    if token.lower().startswith(("mfa.", "bearer ")):
        raise ValueError("this is not a bot token but a user's: take the one from the Bot page of the developer portal")
    if not token or not token.isascii() or any(character.isspace() for character in token):
        raise ValueError("the token is empty, or has spaces or other characters that are not allowed")
    return token, warning


def shared_token_warning(other: str) -> str:
    """What it means that application `other` has the same token."""
    return (
        f"is also the token of {other!r}: both are sessions of one bot, each has all its events, and they share its "
        "session starts"
    )
