"""What the policy engine asks of vLLM, over HTTP, and what its answers mean.

In: token ids, folders of weights, steps of a transfer, marks. Out: rollouts, log-probs, marks. Every question may wait
for the server, for as long as its time-out. Raises `Away` for a server that may come back by itself (no connection, no
answer in time, an engine that died) and `EngineError` for one that waiting does not help (it refuses, or is another
program).

A mark is a text that the engine's process keeps beside its weights; a restart loses it, and so it tells whether a
server still has what it was given. Setting a mark and loading weights are vLLM's development mode
(`VLLM_SERVER_DEV_MODE=1`): keep that server on loopback. Those endpoints change between releases (this is
`WRITTEN_FOR`), and this file is the only one that knows them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from preceptor_client.masking import shown
from preceptor_trainer.errors import one_line
from preceptor_trainer.rollouts.engine import EngineError, Rollout

WRITTEN_FOR = "0.32"
UNMARKED = "default"
"""The mark of a server that nobody marked since it started."""

_SMALL_TIMEOUT_S = 30.0
"""For what costs the engine next to nothing."""
_CONNECT_TIMEOUT_S = 10.0
_AWAY = frozenset({502, 503, 504})


class Away(Exception):
    """No answer that counts, for now; the text says what was seen."""


class _Nothing(BaseModel):
    """Any JSON object, or no body at all."""


class _Version(BaseModel):
    version: str


class _Model(BaseModel):
    id: str
    max_model_len: int | None = None


class _Models(BaseModel):
    data: list[_Model]


class _Reset(BaseModel):
    success: bool


class _Workers(BaseModel):
    world_size: int


class _Mark(BaseModel):
    weight_version: str


class _Logprob(BaseModel):
    logprob: float


class _Logprobs(BaseModel):
    token_logprobs: list[float]


class _Choice(BaseModel):
    index: int
    token_ids: list[int] | None = None
    logprobs: _Logprobs | None = None
    prompt_logprobs: list[dict[int, _Logprob] | None] | None = None


class _Completion(BaseModel):
    choices: list[_Choice]


AnswerT = TypeVar("AnswerT", bound=BaseModel)


class VllmServer:
    """The server at `url` that serves `model`. An answer that takes longer than `watch_s` makes it look after the
    server's health. Raises `EngineError` if `url` is none."""

    def __init__(self, url: str, model: str, timeout_s: float, *, watch_s: float = 5.0) -> None:
        self.url = shown(url.rstrip("/"))
        self._model = model
        self._timeout_s = timeout_s
        self._watch_s = watch_s
        try:
            # Without limits: it is asked for all prefixes of a batch at once.
            self._http = httpx.AsyncClient(base_url=url, limits=httpx.Limits())
        except httpx.InvalidURL as error:
            raise EngineError(f"{self.url} is no address of a server ({error}): set rollouts.vllm.url") from None

    async def close(self) -> None:
        await self._http.aclose()

    async def version(self) -> str:
        """Of vLLM."""
        return (await self._ask("/version", _Version, small=True)).version

    async def context(self) -> int | None:
        """Tokens of a prompt with its answer; None if the server does not say."""
        served = (await self._ask("/v1/models", _Models, small=True)).data
        for model in served:
            if model.id == self._model:
                return model.max_model_len
        names = ", ".join(model.id for model in served)
        raise EngineError(f"vLLM at {self.url} serves {names}, and no {self._model}: set rollouts.vllm.model")

    async def set_mark(self, mark: str) -> None:
        await self._ask("/update_weight_version", _Nothing, {"new_version": mark}, small=True)

    async def mark(self) -> str:
        return (await self._ask("/weight_info", _Mark, small=True)).weight_version

    async def reload(self, folder: Path) -> None:
        """Take the weights in `folder`, and forget what was computed with the ones before."""
        await self._ask(
            "/collective_rpc", _Nothing, {"method": "reload_weights", "kwargs": {"weights_path": str(folder)}}
        )
        await self._forget()

    async def workers(self) -> int:
        """Processes that hold weights."""
        return (await self._ask("/get_world_size", _Workers, small=True)).world_size

    async def join_transfer(self, invitation: dict[str, Any]) -> None:
        """Returns when the workers have joined the trainer's group."""
        await self._ask("/init_weight_transfer_engine", _Nothing, {"init_info": invitation})

    async def pause(self) -> None:
        """Give up what it works on, and begin nothing new; nobody waits for it any more."""
        await self._ask("/pause?mode=abort", _Nothing, {}, small=True)

    async def start_update(self) -> None:
        """Get ready for new weights."""
        await self._ask("/start_weight_update", _Nothing, {})

    async def receive_update(self, description: dict[str, object]) -> None:
        """Returns when the workers have received and loaded what is described."""
        await self._ask("/update_weights", _Nothing, {"update_info": description})

    async def finish_update(self) -> None:
        """Serve the new weights, and forget what was computed with the ones before."""
        await self._ask("/finish_weight_update", _Nothing, {})
        await self._forget()
        await self._ask("/resume", _Nothing, {}, small=True)

    async def _forget(self) -> None:
        if not (await self._ask("/reset_prefix_cache", _Reset, {}, small=True)).success:
            raise Away("it still works on a request that was given up, with the weights before")

    async def logps(self, ids: Sequence[int]) -> list[float]:
        """Of every id but the first."""
        completion = await self._complete([ids], max_tokens=1, temperature=0, prompt_logprobs=0)
        steps = (completion.choices[0].prompt_logprobs if completion.choices else None) or []
        logps = [step[token].logprob for token, step in zip(ids, steps, strict=False) if step and token in step]
        if len(logps) != len(ids) - 1:
            raise EngineError(f"vLLM at {self.url} gave no log-probs of a text")
        return logps

    async def sample(
        self,
        prefixes: Sequence[Sequence[int]],
        *,
        n: int,
        n_tokens: int,
        temperature: float,
        top_p: float,
        seed: int | None,
        stop_ids: Sequence[int],
    ) -> list[tuple[Rollout, ...]]:
        """`n` rollouts of each prefix, each with random numbers of its own."""
        # A request each: a seed stands for the same random numbers behind every prompt of a request, and the i-th
        # rollout of a prompt has that of the seed plus i.
        asking = [
            asyncio.create_task(
                self._rollouts(
                    prefix,
                    n=n,
                    max_tokens=n_tokens,
                    temperature=temperature,
                    top_p=top_p,
                    seed=None if seed is None else seed + place * n,
                    # Only what this run calls the end of a text ends one, whatever the model's own files say.
                    ignore_eos=True,
                    stop_token_ids=list(stop_ids),
                )
            )
            for place, prefix in enumerate(prefixes)
        ]
        try:
            return await asyncio.gather(*asking)
        finally:
            for each in asking:
                each.cancel()
            await asyncio.gather(*asking, return_exceptions=True)

    async def _rollouts(self, prefix: Sequence[int], *, n: int, **settings: Any) -> tuple[Rollout, ...]:
        completion = await self._complete([prefix], n=n, logprobs=0, return_token_ids=True, **settings)
        choices = sorted(completion.choices, key=lambda choice: choice.index)
        rollouts = tuple(
            Rollout(tuple(choice.token_ids), tuple(choice.logprobs.token_logprobs))
            for choice in choices
            if choice.token_ids is not None and choice.logprobs is not None
        )
        if len(rollouts) != n:
            raise EngineError(f"vLLM at {self.url} answered {len(rollouts)} rollouts instead of {n}")
        return rollouts

    async def _complete(self, prompts: Sequence[Sequence[int]], **settings: Any) -> _Completion:
        body = {"model": self._model, "prompt": [list(prompt) for prompt in prompts], **settings}
        return await self._ask("/v1/completions", _Completion, body)

    async def _ask(
        self, path: str, answer: type[AnswerT], body: dict[str, Any] | None = None, *, small: bool = False
    ) -> AnswerT:
        limit_s = min(self._timeout_s, _SMALL_TIMEOUT_S) if small else self._timeout_s
        request = self._http.build_request(
            "GET" if body is None else "POST", path, json=body, timeout=_timeout(limit_s)
        )
        try:
            response = await self._watched(request)
            # A request that the server cannot take and an engine that died look alike; its health tells.
            if response.status_code in _AWAY or (response.is_server_error and not await self._healthy()):
                raise Away(f"vLLM at {self.url} answered {path} with status {response.status_code}")
        except httpx.HTTPError as error:
            raise Away(f"no answer from vLLM at {self.url}{path}: {error!r}") from error
        if response.status_code == httpx.codes.NOT_FOUND and not path.startswith("/v1"):
            raise EngineError(
                f"vLLM at {self.url} has no {path}: start the policy's server with VLLM_SERVER_DEV_MODE=1"
            )
        if response.is_error:
            raise EngineError(
                f"vLLM at {self.url} refused {path} with status {response.status_code}: {one_line(response.text)[:500]}"
            )
        try:
            return answer.model_validate_json(response.content or b"{}")
        except ValidationError as error:
            raise EngineError(f"{self.url}{path} does not answer as vLLM does; set rollouts.vllm.url") from error

    async def _watched(self, request: httpx.Request) -> httpx.Response:
        """The answer, unless the server dies over it: vLLM leaves the requests of an engine that died unanswered."""
        asking = asyncio.create_task(self._http.send(request))
        try:
            while not (await asyncio.wait({asking}, timeout=self._watch_s))[0]:
                if not await self._healthy():
                    raise Away(f"vLLM at {self.url} lost its engine during {request.url.path}")
            return asking.result()
        finally:
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)

    async def _healthy(self) -> bool:
        return (await self._http.get("/health", timeout=_timeout(_SMALL_TIMEOUT_S))).is_success


def _timeout(limit_s: float) -> httpx.Timeout:
    return httpx.Timeout(limit_s, connect=min(limit_s, _CONNECT_TIMEOUT_S))
