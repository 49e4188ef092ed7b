"""Secrets of a configuration: used as they were given, shown and written without them.

In: fields of a pydantic model, typed `MaskedUrl` or `Secret`. Out: a dump as JSON has `***` for a key and for the
passwords of a URL, unless its context is `REVEALED`. What was written so is refused when it is read, so that no `***`
is tried as a password: it has to be given again, by the environment or the command line. No I/O.
"""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, PlainSerializer, SecretStr, SerializationInfo

MASK = "***"
REVEALED = {"secrets": "revealed"}
"""The context of a dump for another process of the same program, never for a file."""
_OF_A_USER = re.compile(r"(?<=://)([^@/:?]*):[^?]*@")
_OF_THE_QUERY = re.compile(r"([?&][^=&]*password=)[^&]*", re.IGNORECASE)


def shown(url: str) -> str:
    """The URL without its passwords, for messages."""
    return _OF_THE_QUERY.sub(rf"\1{MASK}", _OF_A_USER.sub(rf"\1:{MASK}@", url))


def _url_given(url: str) -> str:
    if f":{MASK}@" in url or f"password={MASK}" in url:
        raise ValueError(f"its password was left out when it was written ({MASK}): give it again")
    return url


def _given(secret: SecretStr) -> SecretStr:
    if secret.get_secret_value() == MASK:
        raise ValueError(f"it was left out when it was written ({MASK}): give it again")
    return secret


def _url_dumped(url: str, info: SerializationInfo) -> str:
    return url if info.context == REVEALED else shown(url)


def _dumped(secret: SecretStr, info: SerializationInfo) -> str:
    return secret.get_secret_value() if info.context == REVEALED else MASK


MaskedUrl = Annotated[str, AfterValidator(_url_given), PlainSerializer(_url_dumped, when_used="json")]
"""May hold a password, before its host or in its query."""
Secret = Annotated[SecretStr, AfterValidator(_given), PlainSerializer(_dumped, when_used="json")]
"""A key or a password by itself."""
