"""Physical constants shared by several modules."""

from __future__ import annotations

# km/s, exact by the definition of the metre; astropy.constants has it too, at the cost of a slow import
C_KM_S = 299792.458
