"""The three that are fed, each as one small object. Their packages are imported when they are opened, not before.

In: the run's configuration, its id, the last step it has done. Out: a `Tracker`. Raises `TrainError` when one cannot be
opened. W&B and trackio send by threads of their own: `log` waits for nothing; `close` waits until all is handed over.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from preceptor_trainer.config import TrainConfig
from preceptor_trainer.errors import TrainError, one_line

TENSORBOARD_FOLDER = "tensorboard"


class Tracker(Protocol):
    """Something that keeps figures by step."""

    takes_back: bool
    """Whether steps after the one that it was opened at are forgotten, so that they can come again."""

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """The figures of one step."""

    def close(self, *, failed: bool) -> None:
        """Nothing more comes."""


class TensorBoard:
    """Event files; those of steps after `done` are marked as void in them."""

    takes_back = True

    def __init__(self, config: TrainConfig, id: str, done: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(str(config.out / TENSORBOARD_FOLDER), purge_step=done + 1)

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Written at once: whoever looks sees every step."""
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self, *, failed: bool) -> None:
        """The file is complete."""
        self._writer.close()


class Wandb:
    """A W&B run, the same one after a resume."""

    takes_back = False

    def __init__(self, config: TrainConfig, id: str, done: int) -> None:
        import wandb

        settings = config.logging.wandb
        assert settings
        try:
            self._run = wandb.init(
                project=settings.project,
                entity=settings.entity,
                name=config.run,
                id=id,
                resume="allow",
                mode="offline" if settings.offline else None,
                dir=str(config.out),
                config=public(config),
                settings=wandb.Settings(console="off"),
            )
        except wandb.Error as error:
            raise TrainError(
                f"logging.wandb: {one_line(str(error))}; set WANDB_API_KEY, or logging.wandb.offline=true"
            ) from error

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Handed to W&B's own process."""
        self._run.log(dict(figures), step=step, commit=True)

    def close(self, *, failed: bool) -> None:
        """Waits for the upload."""
        self._run.finish(exit_code=int(failed))


class Trackio:
    """A trackio run, the same one after a resume."""

    takes_back = False

    def __init__(self, config: TrainConfig, id: str, done: int) -> None:
        import trackio

        settings = config.logging.trackio
        assert settings
        try:
            self._run = trackio.init(
                project=settings.project,
                name=id,
                space_id=settings.space_id,
                config=public(config),
                resume="allow",
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )
        except (ValueError, OSError) as error:
            raise TrainError(f"logging.trackio: {one_line(str(error))}") from error

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Handed to trackio's own thread."""
        self._run.log(dict(figures), step=step)

    def close(self, *, failed: bool) -> None:
        """Waits until all is written."""
        self._run.finish()


BACKENDS: dict[str, type[TensorBoard] | type[Wandb] | type[Trackio]] = {
    "tensorboard": TensorBoard,
    "wandb": Wandb,
    "trackio": Trackio,
}


def public(config: TrainConfig) -> dict[str, Any]:
    """The configuration without what may hold a password or a key."""
    secret: Any = {"judge": {"redis_url"}, "rewrite": {"api_key"}, "tracing": True, "logging": True}
    return config.model_dump(mode="json", exclude=secret)
