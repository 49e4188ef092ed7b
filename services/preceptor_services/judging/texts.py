"""A cohort's texts as prompts show them. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from preceptor_client.contract import Cohort, Origin
from preceptor_services.fencing import Neutraliser, fence_for
from preceptor_services.schedules import distinct


@dataclass(frozen=True)
class Texts:
    """Neutralised texts; candidates with the same one share it. `places[k]` says which of the `distinct` texts
    candidate k has."""

    prefix: str
    distinct: list[str]
    places: list[int]
    reference: str | None
    fence: str
    names: list[str]
    """Of every distinct text, the id of the first candidate that has it."""
    pivot: int
    """The distinct text that others are compared with: the original if there is one, else the first."""

    @classmethod
    def of(cls, cohort: Cohort, neutraliser: Neutraliser) -> Texts:
        """The texts of `cohort`."""
        prefix = neutraliser.clean(cohort.prefix)
        texts, places = distinct([neutraliser.clean(candidate.text) for candidate in cohort.candidates])
        reference = None if cohort.reference is None else neutraliser.clean(cohort.reference)
        return cls(
            prefix=prefix,
            distinct=texts,
            places=places,
            reference=reference,
            fence=fence_for([prefix, reference or "", *texts]),
            names=[cohort.candidates[places.index(place)].id for place in range(len(texts))],
            pivot=next((p for p, c in zip(places, cohort.candidates, strict=True) if c.origin is Origin.ORIGINAL), 0),
        )

    @property
    def copies(self) -> list[int]:
        """How many candidates have each of the distinct texts."""
        return [self.places.count(place) for place in range(len(self.distinct))]

    @property
    def shared(self) -> dict[str, Any]:
        """What every prompt of the cohort may show."""
        return {"prefix": self.prefix, "reference": self.reference, "fence": self.fence}
