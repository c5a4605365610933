"""`bon`: best-of-N sampling and data curation for people who align language models."""

__version__ = "0.1.0"
