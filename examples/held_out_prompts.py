#!/usr/bin/env python
"""Draw prompts for the sample model that it was not trained on and that a file does not have.

python examples/held_out_prompts.py --exclude sample_data/prompts.jsonl -o held-out.jsonl
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "scripts" / "sample_models"))

import tasks


def main() -> None:
    """Draw and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--exclude", type=Path, required=True, help="prompts not to ask again")
    parser.add_argument("-o", "--output", type=Path, required=True, help="JSONL file to write")
    parser.add_argument("--per-family", type=int, default=100, help="prompts of each kind of task")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()

    lines = arguments.exclude.read_text("utf-8").splitlines()
    asked = {tasks.parse(json.loads(line)["prompt"])[0] for line in lines}
    left = dict.fromkeys(tasks.FAMILIES, arguments.per_family)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    with arguments.output.open("w", encoding="utf-8") as file:
        # What is excluded could be all of the first draws, so that many more are drawn.
        num_drawn = arguments.per_family + len(asked)
        for task in tasks.unique_tasks(random.Random(arguments.seed), "test", num_drawn):
            if task.key in asked or not left[task.family]:
                continue
            left[task.family] -= 1
            row = {"prompt": task.prompt, "answer": task.answer, "family": task.family}
            file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
