"""Preceptor as the judge of other tools: TRL, lm-evaluation-harness, verl, OpenRLHF, slime. One small module each.

All of them turn the tool's texts into cohorts and a `Scorer`'s findings into what the tool expects. None of the tools
is needed to import its module. What could not be judged never becomes a number that the judge did not give.
"""

from preceptor_client.adapters.scoring import Group, Scored, Scorer, UnjudgedError

__all__ = ["Group", "Scored", "Scorer", "UnjudgedError"]
