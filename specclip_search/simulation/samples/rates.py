"""Rates of rare stars in a simulated survey."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from ..spectra.labels import SimulationError
from .oddities import ODDITIES

EMP_RATE, ODD_RATE = 1 / 500, 1 / 500


@dataclass(frozen=True, slots=True)
class Rates:
    """Rates as fractions of all stars.

    Attributes
    ----------
    emp
        Fraction of stars with [Fe/H] < -3.
    odd
        Fraction of each class of `oddities.ODDITIES`; classes not listed do not occur.
    """

    emp: float = EMP_RATE
    odd: dict[str, float] = field(default_factory=lambda: dict.fromkeys(ODDITIES, ODD_RATE))

    def checked(self) -> Rates:
        """Return the rates after checking them.

        Raises
        ------
        SimulationError
            If a class is unknown or a fraction is invalid.
        """
        _require_known(self.odd)
        shares = [self.emp, *self.odd.values()]
        if not (min(shares) >= 0 and self.emp <= 1 and sum(self.odd.values()) <= 1):
            raise SimulationError(
                f"Rates must be fractions of all stars between 0 and 1, those of the {len(self.odd)} anomaly classes "
                f"at most 1 in total; found emp={self.emp:g} and {sum(self.odd.values()):g} together.",
                "0.002 is one star in 500.",
            )
        return self


def rates_from_words(words: Iterable[str], *, emp: float = EMP_RATE, every: float = ODD_RATE) -> Rates:
    """Rates from texts like `emission=0.004`; all other classes have the rate `every`.

    Raises
    ------
    SimulationError
        If a text is not of the form `class=fraction`, or its class is repeated or unknown.
    """
    own: dict[str, float] = {}
    for word in words:
        name, equals, text = word.partition("=")
        name = name.strip().replace("-", "_")
        try:
            share = float(text)
        except ValueError:
            share = math.nan
        if not equals or not math.isfinite(share):
            raise SimulationError(
                f"A rate must be CLASS=FRACTION with a fraction between 0 and 1; found '{word}'.",
                "For example emission=0.002.",
            )
        _require_known([name])
        if name in own:
            raise SimulationError(f"Each class has one rate; found {name} twice.", "Give it once.")
        own[name] = share
    return Rates(emp, dict.fromkeys(ODDITIES, every) | own).checked()


def _require_known(names: Iterable[str]) -> None:
    unknown = sorted(set(names) - set(ODDITIES))
    if unknown:
        raise SimulationError(
            f"Classes are {', '.join(ODDITIES)}; found {', '.join(unknown)}.", "Use one of these classes."
        )
