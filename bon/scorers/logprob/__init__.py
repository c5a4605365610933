"""Log-probabilities of responses under a reference model, for the KL penalty."""

from bon.scorers.logprob.scorer import PREFIX, LogprobScorer

__all__ = ["PREFIX", "LogprobScorer"]
