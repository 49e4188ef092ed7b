"""Where else the lines of `metrics.jsonl` go. Importable without torch, and without what they go to."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from preceptor_trainer.section import Section

Project = Annotated[str, Field(min_length=1, max_length=128)]


class WandbConfig(Section):
    """Weights & Biases. Its own variables (`WANDB_API_KEY`, `WANDB_MODE`, ...) hold as well."""

    project: Project = "preceptor"
    entity: str | None = None
    """A team or user; None: that of the key."""
    offline: bool = False
    """Write to `<out>/wandb` alone, for `wandb sync` later."""


class TrackioConfig(Section):
    """Trackio, in a local database (`TRACKIO_DIR`) unless a Space is named."""

    project: Project = "preceptor"
    space_id: str | None = None
    """A Hugging Face Space to log to."""


class LoggingConfig(Section):
    """Each of these is fed if it is set, and needs the extra of its name."""

    tensorboard: bool = False
    """Event files in `<out>/tensorboard`."""
    wandb: WandbConfig | None = None
    trackio: TrackioConfig | None = None

    @property
    def on(self) -> tuple[str, ...]:
        """The names of those that are set."""
        return tuple(name for name in type(self).model_fields if getattr(self, name))
