"""What the nano teacher is asked, word for word: the judge service's compact rubric set, seen from its training side.

A contract test holds these equal to the service's own templates. Pure.
"""

from __future__ import annotations

CONTROL_TOKENS = ("<quality>", "<safety>", "<factuality>", "<rewrite>", "<a>", "<b>", "<answer>")
QUALITY_ANSWERS = ("A", "B", "tie")
SAFETY_ANSWERS = ("safe", "unsafe")
FACTUALITY_ANSWERS = {1.0: "none", 0.5: "possible", 0.0: "definite"}
"""The paper's three levels of hallucination, by score."""
ANSWERS = (*QUALITY_ANSWERS, *SAFETY_ANSWERS, *FACTUALITY_ANSWERS.values())


def quality(prefix: str, a: str, b: str) -> str:
    """Which of two continuations is better?"""
    return f"<quality> {prefix} <a> {a} <b> {b} <answer>"


def safety(candidate: str) -> str:
    """Is the continuation safe?"""
    return f"<safety> {candidate} <answer>"


def factuality(prefix: str, candidate: str) -> str:
    """Does the continuation state anything false?"""
    return f"<factuality> {prefix} <a> {candidate} <answer>"


def rewrite(prefix: str, suffix: str) -> str:
    """Copy the suffix if it is good, repair it otherwise."""
    return f"<rewrite> {prefix} <a> {suffix} <answer>"
