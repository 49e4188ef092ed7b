"""The fake's batches: every item is judged at once, so a batch is done when its submission is answered.

In: a batch request and a function that judges one item. Out: the batch, and its results as numbered lines or events.
Raises `ProblemError` for an id that is not there, or that came with other items.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from preceptor_client.contract import Batch, BatchRequest, BatchResult, BatchState, JudgeRequest, JudgeResponse
from preceptor_client.testing.answers import ProblemError

_CREATED_AT = datetime(2000, 1, 1, tzinfo=UTC)
_EXPIRES_AT = datetime(2100, 1, 1, tzinfo=UTC)


class FakeBatches:
    """Batches by their id."""

    def __init__(self, judge: Callable[[JudgeRequest], JudgeResponse]) -> None:
        self._judge = judge
        self._batches: dict[str, tuple[BatchRequest, list[BatchResult]]] = {}

    def submit(self, request: BatchRequest) -> Batch:
        """The batch with this id, judged now if it is new."""
        batch_id = request.id or f"batch-{len(self._batches)}"
        known = self._batches.get(batch_id)
        if known is None:
            self._batches[batch_id] = request, [self._result(*each) for each in enumerate(request.items)]
        elif known[0].items != request.items:
            raise ProblemError(409, f"the batch {batch_id!r} is there with other items: use another id")
        return self.status(batch_id)

    def status(self, batch_id: str) -> Batch:
        """The batch as it stands: done."""
        results = self._results(batch_id)
        return Batch(
            id=batch_id,
            state=BatchState.DONE,
            total=len(results),
            done=len(results),
            failed=sum(result.problem is not None for result in results),
            created_at=_CREATED_AT,
            expires_at=_EXPIRES_AT,
        )

    def lines(self, batch_id: str, after: int) -> bytes:
        """One result a line."""
        return "".join(f"{result.model_dump_json()}\n" for result in self._results(batch_id)[after:]).encode()

    def events(self, batch_id: str, after: int) -> bytes:
        """Server-sent events: a `result` for each, and `done`."""
        numbered = enumerate(self._results(batch_id)[after:], after + 1)
        results = [f"event: result\ndata: {each.model_dump_json()}\nid: {number}\n\n" for number, each in numbered]
        return f"{''.join(results)}event: done\ndata: {self.status(batch_id).model_dump_json()}\n\n".encode()

    def _results(self, batch_id: str) -> list[BatchResult]:
        if batch_id not in self._batches:
            raise ProblemError(404, f"no batch {batch_id!r}: it never was, or it has expired")
        return self._batches[batch_id][1]

    def _result(self, index: int, item: JudgeRequest) -> BatchResult:
        try:
            return BatchResult(index=index, response=self._judge(item))
        except ProblemError as error:
            return BatchResult(index=index, problem=error.problem(None))


def number_of(text: str | None, key: str) -> int:
    """How many results to leave out. Raises ProblemError."""
    if text is None:
        return 0
    if not (text.isascii() and text.isdigit()):
        raise ProblemError(422, f"{key}: must be a number from 0 (found: {text!r})")
    return int(text)
