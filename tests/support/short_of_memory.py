"""Scores in a process of its own whose memory is limited once the model is loaded and warm."""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path

from bon.records import CandidateGroup
from support.scoring import flat, reward_scorer


def conversations() -> tuple[CandidateGroup, ...]:
    """12 conversations of more than 900 tokens, 3,724 of them distinct."""
    return tuple(
        CandidateGroup(letter, ({"role": "user", "content": letter * 900},), ("b", "bb", "bbb"))
        for letter in "abcd"
    )


def main(folder: str, more_bytes: int) -> None:
    """Print the scores and the budget of the end as JSON."""
    import torch

    torch.set_num_threads(1)
    first = CandidateGroup("first", ({"role": "user", "content": "x"},), ("y",))
    with reward_scorer(Path(folder), batch_tokens=1 << 14) as scorer:
        scorer.score((first,))
        lines = Path("/proc/self/status").read_text().splitlines()
        (data_kib,) = (int(line.split()[1]) for line in lines if line.startswith("VmData"))
        limit = data_kib * 1024 + more_bytes
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
        scores = flat(scorer.score(conversations()))
        print(json.dumps({"scores": scores, "halved": scorer.halved_batch_tokens}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
