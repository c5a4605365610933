"""Candidates from servers that speak OpenAI's API."""

from bon.generators.server.generator import ServerGenerator

__all__ = ["PREFIX", "ServerGenerator"]

PREFIX = "server:"
"""What `-m` begins with."""
