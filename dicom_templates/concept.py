"""One row of the private table of codes."""

from dataclasses import dataclass
from typing import Final

from pydicom.sr.coding import Code

SCHEME: Final = "99GENU"


@dataclass(frozen=True)
class Concept:
    """One row of the private table: `value` at most 16 characters (SH), `meaning` at most 64 (LO), both ASCII."""

    value: str
    meaning: str
    used_as: str
    definition: str

    @property
    def code(self) -> Code:
        """The concept as a coded entry of the scheme 99GENU."""
        return Code(self.value, SCHEME, self.meaning)
