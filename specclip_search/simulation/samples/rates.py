"""How rare the rare stars of a simulated survey are."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from ..spectra.labels import SimulationError
from .oddities import ODDITIES

EMP_RATE, ODD_RATE = 1 / 500, 1 / 500


@dataclass(frozen=True, slots=True)
class Rates:
    """Each a share of all stars.

    Attributes
    ----------
    emp
        Stars of [Fe/H] < -3.
    odd
        Share of each class of `oddities.ODDITIES`; a class that is not named does not occur.
    """

    emp: float = EMP_RATE
    odd: dict[str, float] = field(default_factory=lambda: dict.fromkeys(ODDITIES, ODD_RATE))

    def checked(self) -> Rates:
        """Itself.

        Raises
        ------
        SimulationError
            If a class is not known or a share not possible.
        """
        _require_known(self.odd)
        shares = [self.emp, *self.odd.values()]
        if not (min(shares) >= 0 and self.emp <= 1 and sum(self.odd.values()) <= 1):
            raise SimulationError(
                f"Rates must be shares of all stars between 0 and 1, those of the {len(self.odd)} odd classes at "
                f"most 1 together; found emp={self.emp:g} and {sum(self.odd.values()):g} together.",
                "0.002 is one star in 500.",
            )
        return self


def rates_from_words(words: Iterable[str], *, emp: float = EMP_RATE, every: float = ODD_RATE) -> Rates:
    """Rates from words like `emission=0.004`; classes that no word names occur at the rate `every`.

    Raises
    ------
    SimulationError
        If a word is no `class=share`, names a class twice or one that is not known.
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
                f"A rate reads CLASS=SHARE with a share between 0 and 1; found '{word}'.", "For example emission=0.002."
            )
        _require_known([name])
        if name in own:
            raise SimulationError(f"Each class has one rate; found {name} twice.", "Leave one of them out.")
        own[name] = share
    return Rates(emp, dict.fromkeys(ODDITIES, every) | own).checked()


def _require_known(names: Iterable[str]) -> None:
    unknown = sorted(set(names) - set(ODDITIES))
    if unknown:
        raise SimulationError(
            f"Oddities are {', '.join(ODDITIES)}; found {', '.join(unknown)}.", "Name one of these classes."
        )
