"""The durable directory of prompts, candidates and scores: layout, parts, manifest, lock."""
