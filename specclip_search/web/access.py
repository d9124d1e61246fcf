"""Who is asking, and what they may do: tokens with a role, as a bearer or in a signed cookie."""

from __future__ import annotations

import hashlib
import hmac
import re
import time
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import QueryError

ROLES = ("viewer", "judge", "owner")
COOKIE = "specclip_explorer"
COOKIE_SECONDS = 30 * 86_400
_USER = re.compile(r"[\w.@+-]{1,64}")
_SHORTEST = 20


@dataclass(frozen=True, slots=True)
class Person:
    """Who is asking.

    Attributes
    ----------
    user
        Name that verdicts carry.
    role
        ``viewer`` looks, ``judge`` gives verdicts and uploads as well, ``owner`` sees the server's state as well.
    """

    user: str
    role: str

    def may(self, role: str) -> bool:
        """Whether this person has the rights of `role`."""
        return ROLES.index(self.role) >= ROLES.index(role)


@dataclass(frozen=True, slots=True)
class Token:
    """A secret of one person; only its SHA-256 is kept in memory."""

    person: Person
    digest: bytes


class Tokens:
    """All tokens of an explorer."""

    def __init__(self, tokens: Sequence[Token]) -> None:
        self._tokens = tuple(tokens)

    def person_of(self, secret: str) -> Person | None:
        """Whose token `secret` is; every token is compared, in constant time each."""
        given = _digest(secret)
        found = None
        for token in self._tokens:
            if hmac.compare_digest(given, token.digest):
                found = token.person
        return found

    def cookie_for(self, secret: str, now: float | None = None) -> str:
        """A signed cookie for the holder of a token; it ends with the token, or after 30 days."""
        person = self.person_of(secret)
        if person is None:
            raise ValueError("no such token")
        expires = int((time.time() if now is None else now) + COOKIE_SECONDS)
        text = f"{person.user}|{expires}"
        return f"{text}|{_signature(_digest(secret), text)}"

    def person_of_cookie(self, cookie: str, now: float | None = None) -> Person | None:
        """Who holds a cookie; None where it is forged, too old, or its token is gone."""
        text, _, signature = cookie.rpartition("|")
        user, _, expires = text.rpartition("|")
        if not (expires.isascii() and expires.isdigit()) or len(expires) > 12:
            return None
        if int(expires) < (time.time() if now is None else now):
            return None
        found = None
        for token in self._tokens:
            same = hmac.compare_digest(_signature(token.digest, text).encode(), signature.encode("utf-8", "replace"))
            if same and token.person.user == user:
                found = token.person
        return found

    def __len__(self) -> int:
        return len(self._tokens)


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "replace")).digest()


def _signature(key: bytes, text: str) -> str:
    return hmac.new(b"specclip explorer cookie" + key, text.encode("utf-8", "replace"), hashlib.sha256).hexdigest()


def read_tokens(path: Path) -> Tokens:
    """Read a file of tokens.

    Parameters
    ----------
    path
        TOML with tables ``[[token]]``, each with ``user``, ``role`` (viewer, judge or owner) and either
        ``token``, a secret of at least 20 characters, or ``sha256``, the hexadecimal SHA-256 of it.

    Raises
    ------
    QueryError
        If the file cannot be read or says anything else.
    """
    example = '[[token]]\nuser = "anna"\nrole = "judge"\ntoken = "..."'
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise QueryError(
            f"The token file {path} cannot be read: {error}.", f"Write for each person:\n{example}"
        ) from error
    entries = content.get("token")
    if not isinstance(entries, list) or not entries or set(content) != {"token"}:
        raise QueryError(f"The token file {path} holds no [[token]] tables, or other things.", f"Write:\n{example}")
    tokens = [_token(entry, number, path) for number, entry in enumerate(entries, 1)]
    if len({token.digest for token in tokens}) < len(tokens):
        raise QueryError(f"The token file {path} gives one secret to two people.", "Give each person another one.")
    return Tokens(tokens)


def _token(entry: object, number: int, path: Path) -> Token:
    where = f"Token {number} of {path}"
    if not isinstance(entry, dict) or not set(entry) <= {"user", "role", "token", "sha256"}:
        raise QueryError(f"{where} has keys other than user, role, token and sha256.", "Leave the others out.")
    user, role = entry.get("user"), entry.get("role")
    if not isinstance(user, str) or not _USER.fullmatch(user):
        raise QueryError(f"{where} needs a user of 1 to 64 letters, digits or . _ @ + -; found {user!r}.", "Name one.")
    if role not in ROLES:
        raise QueryError(f"{where} needs a role: {', '.join(ROLES)}; found {role!r}.", "Choose one of these.")
    secret, digest = entry.get("token"), entry.get("sha256")
    if (secret is None) == (digest is None):
        raise QueryError(f"{where} needs either token or sha256.", "Give one of the two.")
    if digest is not None:
        if not isinstance(digest, str) or not re.fullmatch(r"[0-9a-fA-F]{64}", digest):
            raise QueryError(f"{where}: sha256 must be 64 hexadecimal digits.", "Take those of the secret's SHA-256.")
        return Token(Person(user, role), bytes.fromhex(digest))
    if not isinstance(secret, str) or len(secret) < _SHORTEST:
        raise QueryError(
            f"{where}: a secret has at least {_SHORTEST} characters.",
            'Make one: python -c "import secrets; print(secrets.token_urlsafe())"',
        )
    return Token(Person(user, role), _digest(secret))
