"""Who may change something: one password, names that people give, and tokens against forged forms.

The password is drawn at each start and shown on the terminal, or is `$SAFEGEN_CONSOLE_PASSWORD`.
Sessions live in memory and end with the process.
"""

from __future__ import annotations

import hmac
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

__all__ = ["COOKIE", "Door", "Session", "TooMany"]

COOKIE = "safegen_session"
_HOURS = 12 * 3600.0
_MOST = 200  # sessions, and addresses whose failures are remembered
_TRIES, _WINDOW = 5, 60.0


class TooMany(Exception):
    """Wrong passwords from one address: not before `seconds` have passed."""

    def __init__(self, seconds: float):
        self.seconds = max(1, round(seconds))
        super().__init__(self.seconds)


@dataclass(frozen=True)
class Session:
    """A person who has signed in, or a visitor (`by` is None). `token`: what its forms carry."""

    by: str | None
    token: str
    until: float = 0.0


class Door:
    """Signs people in. Safe in threads. password: None where nobody may."""

    def __init__(self, password: str | None, clock: Callable[[], float] = monotonic):
        self._password = password
        self._clock = clock
        # Visitors share one: it shows that a form is ours, and no visitor may do more than another.
        self._visitor = Session(None, secrets.token_urlsafe(32))
        self._sessions: dict[str, Session] = {}
        self._failures: dict[str, list[float]] = {}
        self._lock = threading.Lock()

    @property
    def opens(self) -> bool:
        """Whether anybody can sign in."""
        return self._password is not None

    def session(self, cookie: str | None) -> Session:
        """The session of a cookie; the visitors' where it is none, or over."""
        with self._lock:
            found = self._sessions.get(cookie or "")
        return found if found is not None and found.until > self._clock() else self._visitor

    def enter(self, password: str, by: str, address: str) -> str | None:
        """The cookie of a new session; None for a wrong password. Raises: TooMany."""
        now = self._clock()
        with self._lock:
            recent = [t for t in self._failures.pop(address, ()) if t > now - _WINDOW]
            if recent:
                self._failures[address] = recent
            if len(recent) >= _TRIES:
                raise TooMany(recent[0] + _WINDOW - now)
            if self._password is None or not _same(password, self._password):
                self._failures[address] = [*recent, now]
                _bound(self._failures)
                return None
            self._failures.pop(address, None)
            cookie = secrets.token_urlsafe(32)
            self._sessions[cookie] = Session(by, secrets.token_urlsafe(32), now + _HOURS)
            _bound(self._sessions)
            return cookie

    def leave(self, cookie: str | None) -> None:
        """End a session."""
        with self._lock:
            self._sessions.pop(cookie or "", None)


def _same(given: str, right: str) -> bool:
    """In a time that tells nothing of where they differ."""
    return hmac.compare_digest(given.encode("utf-8", "replace"), right.encode("utf-8", "replace"))


def holds(session: Session, token: str) -> bool:
    """Whether a request carries the session's own token."""
    return _same(token, session.token)


def _bound(kept: dict[str, object] | dict[str, Session] | dict[str, list[float]]) -> None:
    """The oldest go."""
    while len(kept) > _MOST:
        del kept[next(iter(kept))]
