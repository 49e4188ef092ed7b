"""Log-probabilities of suffixes given their prefixes, with the prefix of a cohort computed once."""

from preceptor_trainer.scoring.scorer import SuffixScorer, make_scorer

__all__ = ["SuffixScorer", "make_scorer"]
