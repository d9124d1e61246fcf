"""How a server is asked: not too often, again after a failure that may pass, and not for ever."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from ..errors import FetchError

Answer = TypeVar("Answer")
LONGEST_WAIT = 300.0


class Transient(Exception):
    """A failure that another try may mend: a server's error, a cut file, no answer in time.

    Parameters
    ----------
    text
        What happened.
    wait
        Seconds that the server asks to wait (``Retry-After``).
    """

    def __init__(self, text: str, wait: float | None = None) -> None:
        super().__init__(text)
        self.wait = wait


@dataclass
class Patience:
    """Limits of asking.

    Attributes
    ----------
    tries
        Times that one thing is asked for.
    wait
        Seconds before the second try; doubled with every further one.
    pause
        Least seconds between two requests.
    timeout
        Seconds without a byte after which a request has failed.
    """

    tries: int = 5
    wait: float = 2.0
    pause: float = 0.2
    timeout: float = 120.0
    sleep: Callable[[float], None] = field(default=time.sleep, repr=False)
    _last: float = field(default=float("-inf"), repr=False)

    def call(self, what: str, ask: Callable[[], Answer]) -> Answer:
        """The answer; `ask` is called again after `Transient`.

        Raises
        ------
        FetchError
            When the last try failed, too.
        """
        for number in range(1, self.tries + 1):
            rest = self._last + self.pause - time.monotonic()
            if rest > 0:
                self.sleep(rest)
            try:
                return ask()
            except Transient as error:
                if number == self.tries:
                    raise FetchError(
                        f"{what}: {error}, {number} times in a row.",
                        "What was fetched is kept: run the same command again later to continue.",
                    ) from None
                self.sleep(min(error.wait if error.wait is not None else self.wait * 2 ** (number - 1), LONGEST_WAIT))
            finally:
                self._last = time.monotonic()
        raise AssertionError("tries is at least 1")
