"""Scorers whose reward model runs behind a server: vLLM's or SGLang's."""

from bon.scorers.server.scorer import ServerScorer

__all__ = ["PREFIX", "ServerScorer"]

PREFIX = "server:"
"""What the spec of one begins with."""
