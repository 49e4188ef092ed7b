"""Which axes a judge can be asked about, and by which rubrics. Reads rubric files, nothing else.

In: the axes wanted, rubrics by name or file, what the judge has, and what the texts offer: two sides to compare, a
reference. Out: what is asked, and which axes are left out and why. Raises `TrainError` if a rubric is not to be had, or
nothing is left to ask.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from preceptor_client.calls import axes_asked
from preceptor_client.contract import Mode, RubricInfo, RubricSpec
from preceptor_client.rubrics import RubricError, load_rubric
from preceptor_trainer.errors import TrainError, one_line


@dataclass(frozen=True)
class Asked:
    """Axes, and the rubrics of those that are not judged by the judge's default."""

    axes: tuple[str, ...]
    rubrics: Mapping[str, RubricSpec | str] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)
    """Axis -> why it is not asked."""


def choose(
    axes: Sequence[str] | None, given: Sequence[str], offered: Sequence[RubricInfo], *, compared: bool, referenced: bool
) -> Asked:
    """`axes`, or without any those of the rubrics `given`, or else all. `compared`: there are two sides; `referenced`:
    every prefix has its true continuation.
    """
    named = {info.name: info for info in offered}
    specs = {info.spec.axis: info.spec for info in offered if info.default}
    rubrics: dict[str, RubricSpec | str] = {}
    for name in given:
        spec = named[name].spec if name in named else _from_file(name, named)
        rubrics[spec.axis], specs[spec.axis] = (name if name in named else spec), spec
    axes = axes_asked(axes, rubrics)
    if unknown := [axis for axis in axes if axis not in specs]:
        raise TrainError(
            f"the judge has no rubric for {', '.join(unknown)}, only for {', '.join(specs)}: set --axes or --rubric"
        )
    left_out = {}
    for axis in axes:
        if not referenced and specs[axis].reference == "required":
            left_out[axis] = "its rubric needs a reference"
        elif not compared and specs[axis].mode is not Mode.POINTWISE:
            left_out[axis] = "its rubric compares, and there is one model: set --against"
    asked = tuple(axis for axis in axes if axis not in left_out)
    if not asked:
        raise TrainError(f"nothing can be judged: {'; '.join(f'{axis}: {why}' for axis, why in left_out.items())}")
    return Asked(asked, {axis: rubric for axis, rubric in rubrics.items() if axis in asked}, left_out)


def _from_file(name: str, known: Iterable[str]) -> RubricSpec:
    if not Path(name).exists():
        raise TrainError(f"--rubric {name}: no such file, and no rubric of the judge, which has {', '.join(known)}")
    try:
        return load_rubric(Path(name))
    except RubricError as error:
        raise TrainError(f"--rubric {one_line(str(error))}") from None
