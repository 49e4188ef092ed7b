"""One answer of the teacher, read: the text that it gives, or why it gives none. Pure.

    answer -> wrapping off -> objections -> join off -> unchanged? -> objections -> sample

Guarantees: a sample has a text or an objection, never both; its text joins the prefix as the suffix did.
"""

from __future__ import annotations

from dataclasses import dataclass

from preceptor_client.contract import RewriteChecks
from preceptor_services.fencing import Neutraliser
from preceptor_services.rewriting.answers import same_text, with_margins_of, without_join, without_wrapping
from preceptor_services.rewriting.objections import Fault, Objection, checks_of, objection_to_answer, objection_to_text
from preceptor_services.settings import RewritingSettings


@dataclass(frozen=True)
class Passage:
    """What is rewritten: the texts as they came, and as the prompt shows them."""

    prefix: str
    suffix: str
    shown_prefix: str
    shown_suffix: str
    join: str
    """The prefix's last words, which the prompt asks to be repeated."""
    fence: str

    @property
    def glued(self) -> bool:
        """Whether the border goes through a word."""
        return self.prefix[-1:].isalnum() and self.suffix[:1].isalnum()


@dataclass(frozen=True)
class Sample:
    """A rewrite that may stand for the suffix."""

    text: str
    unchanged: bool
    checks: RewriteChecks


def read_sample(
    answer: str, passage: Passage, neutraliser: Neutraliser, settings: RewritingSettings
) -> Sample | Objection:
    """The rewrite that `answer` gives, or why it gives none."""
    shown = passage.shown_suffix
    if same_text(answer, shown):
        return Sample(passage.suffix, True, checks_of(shown, shown))
    answer = without_wrapping(answer, shown, passage.fence)
    if objection := objection_to_answer(answer, shown, passage.fence):
        return objection
    text = without_join(answer, passage.join, shown, glued=passage.glued).strip()
    if not text:
        return Objection(Fault.EMPTY, "the teacher repeated the end of the prefix and nothing else")
    if same_text(text, shown):
        return Sample(passage.suffix, True, checks_of(shown, shown))
    checks = checks_of(text, shown)
    if objection := objection_to_text(text, passage.shown_prefix, shown, checks, settings):
        return objection
    return Sample(with_margins_of(passage.suffix, neutraliser.restore(text, passage.suffix)), False, checks)
