"""Adapters that sample candidates."""
