"""The closing table, on stderr: the same facts as `--json`, for a person."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bon.shown import shown

__all__ = ["closing_table"]


def closing_table(title: str, result: dict[str, Any]) -> None:
    """Print what a command did, from the object that `--json` prints."""
    table = Table(show_header=False)
    table.add_column()
    table.add_column(justify="right")
    _book_rows(table, result)
    table.add_section()
    for stage in result["stages"]:
        _add_row(table, stage["name"], _stage_text(stage))
        if stage.get("num_tokens_computed"):
            _add_row(table, "  computed", _computed_text(stage))
        if halved := stage.get("halved_batch_tokens"):
            _add_row(table, "  out of memory, halved to", f"{halved:,} tokens a batch")
        if retries := stage.get("retries"):
            _add_row(table, "  asked again", _retries_text(retries))
    table.add_section()
    _verified_rows(table, result)
    table.add_section()
    _ranking_rows(table, result.get("ranking", {}))
    _reward_rows(table, result)
    table.add_section()
    _accuracy_rows(table, result)
    table.add_section()
    _pair_rows(table, result)
    table.add_section()
    _filter_rows(table, result)
    if "output" in result:
        table.add_section()
        for split, rows in result.get("written_rows", {"": result["output_rows"]}).items():
            name = "written" if split in ("", "train") else f"written, {split}"
            _add_row(table, name, f"{rows:,} rows")
        if merged := sum(result.get("merged_rows", {}).values()):
            _add_row(table, "merged, same prompt/response", f"{merged:,} rows")
    console = Console(stderr=True)
    if not console.is_terminal:
        console = Console(stderr=True, width=100)  # a file gets whole lines
    # by itself: a table's title is broken to the table's width
    console.print(Text(shown(title), style="table.title"), soft_wrap=True)
    console.print(table)
    for line in _lines(result):
        console.print(Text(f"  {shown(line)}"), soft_wrap=True)


def _add_row(table: Table, name: str, value: str) -> None:
    """As text, for names may be anything: reasons, scorers and filters of other people."""
    table.add_row(Text(shown(name)), Text(shown(value)))


def _book_rows(table: Table, result: dict[str, Any]) -> None:
    _add_row(table, "input rows", f"{result['input_rows']:,}")
    _add_row(table, "prompts kept", f"{result['kept_rows']:,}")
    _add_row(table, "dropped", f"{sum(result['drops'].values()):,}")
    for reason, count in result["drops"].items():
        _add_row(table, f"  {reason}", f"{count:,}")
    if "candidates" in result:
        _add_row(table, "candidates", f"{result['candidates']:,}")
    for reason, count in result["candidate_drops"].items():
        _add_row(table, f"  {reason}", f"{count:,}")
    if result.get("ties"):
        _add_row(table, "prompts with a tie", f"{result['ties']:,}")


def _stage_text(stage: dict[str, Any]) -> str:
    if stage["num_parts_done"] == 0:
        return "nothing to do"
    if not stage["num_tokens"]:  # a rule reads none
        return f"{stage['num_candidates']:,} candidates in {stage['run_s']:.1f} s"
    rate = stage["tokens_per_s"] or 0.0
    return f"{stage['num_tokens']:,} tokens in {stage['run_s']:.1f} s, {rate:,.0f} tokens/s"


def _share_text(verified: dict[str, Any]) -> str:
    return f"{verified['num_rankings_changed']:,} of {verified['num_prompts']:,}"


def _computed_text(stage: dict[str, Any]) -> str:
    """Prompts that are shared save tokens, padding adds some."""
    computed, saved = stage["num_tokens_computed"], stage["share_saved"]
    if saved is None:
        return f"{computed:,} tokens"
    percent = round(100 * saved)
    said = f"saved {percent} %" if percent >= 0 else f"{-percent} % more than given"
    return f"{computed:,} tokens, {said}"


def _retries_text(retries: dict[str, int]) -> str:
    """`12 times: 429 ×10, connection ×2`."""
    causes = ", ".join(f"{cause} ×{count:,}" for cause, count in sorted(retries.items()))
    return f"{sum(retries.values()):,} times: {causes}"


def _verified_rows(table: Table, result: dict[str, Any]) -> None:
    for name, one in result.get("verified", {}).items():
        counts = f"{one['num_candidates']:,} candidates of {one['num_prompts']:,} prompts"
        _add_row(table, f"verified {name}", counts)
        if one["num_failed"]:
            _add_row(table, "  not scored by the reference", f"{one['num_failed']:,}")
        if one["largest_difference"] is not None:
            _add_row(table, "  largest difference", f"{one['largest_difference']:.2g}")
            _add_row(table, "  rankings that would change", _share_text(one))


def _ranking_rows(table: Table, ranking: dict[str, Any]) -> None:
    if "num_gated" in ranking:
        _add_row(table, "candidates below a gate", f"{ranking['num_gated']:,}")
    for name, slope in ranking.get("length_slopes", {}).items():
        unit = ranking["length_unit"].removesuffix("s")
        _add_row(table, f"length taken out of {name}", f"{slope:+.3g} a {unit}")
    if kl := ranking.get("kl"):
        _add_row(table, "KL to the reference, k1", f"{kl['k1']:.4g} nats a response")
        k3 = "overflows" if kl["k3"] is None else f"{kl['k3']:.4g}"
        _add_row(table, "  k2, k3", f"{kl['k2']:.4g}, {k3}")
        if kl["num_missing"]:
            _add_row(table, "  without log-probabilities", f"{kl['num_missing']:,} candidates")


def _reward_rows(table: Table, result: dict[str, Any]) -> None:
    if result.get("lift") is not None:
        _add_row(table, "mean reward, all", f"{result['mean_reward_all']:.4f}")
        _add_row(table, "mean reward, chosen", f"{result['mean_reward_chosen']:.4f}")
        _add_row(table, "lift", f"{result['lift']:+.4f}")


def _accuracy_rows(table: Table, result: dict[str, Any]) -> None:
    low, high = result.get("accuracy_random"), result.get("accuracy_chosen")
    if low is not None and high is not None:
        _add_row(table, "right, a random candidate", f"{low:.1%}")
        _add_row(table, "right, the chosen", f"{high:.1%}")
        _add_row(table, "gain", f"{100 * (high - low):+.1f} points")


def _pair_rows(table: Table, result: dict[str, Any]) -> None:
    if "pair_drops" not in result:  # bon filter counts its pairs by filter instead
        return
    _add_row(table, "pairs formed", f"{result['pairs']:,}")
    for reason, count in result["pair_drops"].items():
        _add_row(table, f"  {reason}", f"{count:,}")
    _add_row(table, "pairs kept", f"{result['output_rows']:,}")
    for name, said in (
        ("mean_margin", "mean margin"),
        ("mean_score_chosen", "mean score, chosen"),
        ("mean_score_rejected", "mean score, rejected"),
        ("mean_num_tokens_chosen", "mean tokens, chosen"),
        ("mean_num_tokens_rejected", "mean tokens, rejected"),
    ):
        if result.get(name) is not None:
            _add_row(table, said, f"{result[name]:,.3f}")


def _filter_rows(table: Table, result: dict[str, Any]) -> None:
    for one in result.get("filters", ()):
        flipped = f", {one['num_flipped']:,} flipped" if one.get("num_flipped") else ""
        _add_row(
            table,
            one["name"],
            f"{one['num_kept']:,} of {one['num_in']:,}, {one['num_dropped']:,} dropped" + flipped,
        )


def _verified_lines(result: dict[str, Any]) -> list[str]:
    lines = []
    for name, one in result.get("verified", {}).items():
        if one["largest_difference"]:
            at = one["largest_at"]
            lines.append(
                f"verified {name}: the largest difference is that of id={at['prompt_id']} "
                f"candidate {at['candidate']}: {at['score']:.9g} stored, "
                f"{at['reference']:.9g} alone"
            )
        if one["num_rankings_changed"]:
            lines += _ranking_warning(name, one)
        for failed in one["failures"][:3]:
            place = f"id={failed['prompt_id']} candidate {failed['candidate']}"
            why = f"{failed['reason']}: {failed['detail']}"
            lines.append(f"verified {name}: no score alone for {place}: {why}")
    return lines


def _ranking_warning(name: str, verified: dict[str, Any]) -> list[str]:
    shown, count = verified["rankings_changed"][:3], verified["num_rankings_changed"]
    prompts = ", ".join(f"id={prompt_id}" for prompt_id in shown)
    more = f" and {count - len(shown):,} more" if count > len(shown) else ""
    return [
        f"warning: scored alone, candidates of {name} would rank otherwise: {prompts}{more}",
        "  if the difference is the data type's rounding: score with --reward-dtype float32 under "
        "another name, -r NAME=SPEC",
        f"  if it is larger, these are not the model's scores: delete scores/{name} in the pool "
        "and score it again",
    ]


def _lines(result: dict[str, Any]) -> list[str]:
    lines = [_drop_text(drop) for drop in result["drop_examples"]]
    more = sum(result["drops"].values()) + sum(result["candidate_drops"].values()) - len(lines)
    if lines:
        lines += [f"… and {more:,} more"] if more > 0 else []
        where = f"{result['pool']}/drops"
        if result["pool"] is not None and Path(where).is_dir():  # not if all fell in this command
            lines.append(f"what could not be read, sampled or scored is listed in {where}")
    lines += _verified_lines(result)
    if "dropped" in result:
        lines.append(f"what was filtered out is in {result['dropped']}")
    if "output" in result:
        lines += [f"written to {path}" for path in result.get("files", [result["output"]])[:4]]
    return lines


def _drop_text(drop: dict[str, Any]) -> str:
    parts = [drop["where"], f"id={drop['id']}" if drop["id"] else ""]
    if drop["candidate"] is not None:
        parts.append(f"candidate {drop['candidate']}")
    place = " ".join(part for part in parts if part)
    return f"dropped {place}: {drop['reason']}: {drop['detail']}"
