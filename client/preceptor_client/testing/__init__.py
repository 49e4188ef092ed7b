"""A fake of the judge and rewrite services for your own tests: no GPU, no FastAPI, and no network unless you want one.

    fake = FakePreceptor(score=lambda axis, prefix, text: 1.0 if "please" in text else 0.0)
    with fake.client() as client:
        response = client.judge_texts("Pass the salt,", ["please.", "now."])
    fake.script(Refusal(503), Refusal(429, retry_after_s=0))     # what the next two requests get
    assert [request.axes for request in fake.judged]
    with fake.serve() as url:                                    # for what calls over HTTP: other processes, curl
        ...

In: a function that scores and one that rewrites; what the next requests are refused with. Out: the real clients of the
SDK, an httpx transport, or a loopback URL. Guarantees: requests and answers follow the contract (errors are
problem+json with a request id and name the key, a repeated Idempotency-Key is answered again, a score goes with `ok`
only), and the same request always gets the same answer. Does no judging of its own: scores are what `score` says, gates
on a text itself (length, repetition, copy) always hold, and a batch is done when it is submitted. Waits for nothing.
"""

from preceptor_client.testing.answers import copied, score_by_hash
from preceptor_client.testing.fake import FakePreceptor, Refusal, Unreachable
from preceptor_client.testing.teacher import Rewrite, Score

__all__ = ["FakePreceptor", "Refusal", "Rewrite", "Score", "Unreachable", "copied", "score_by_hash"]
