"""Filters over a pool: which rows stay, why the others go, and the rows themselves."""
