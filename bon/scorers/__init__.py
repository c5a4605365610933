"""Adapters that give each candidate one float."""
