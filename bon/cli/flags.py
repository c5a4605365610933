"""From settings models to command-line flags: the field is the flag, its docstring the help."""

from __future__ import annotations

import inspect
import json
import types
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

import typer
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from bon.cli.console import note
from bon.cli.reasons import reasons_to
from bon.config import Flag, Settings, known_keys, read_config_file, resolve
from bon.errors import SettingsError
from bon.object_store import ObjectPath
from bon.places import Place, place
from bon.sources.locate import refuse_undecodable

__all__ = ["Invocation", "command"]

S = TypeVar("S", bound=Settings)


@dataclass(frozen=True)
class Invocation:
    """One call of a command: what was typed."""

    source: str
    output: Place | None
    dry_run: bool
    as_json: bool
    quiet: bool
    verbose: bool
    flags: dict[str, Any]
    """Flags of the settings groups, none where not given."""
    file_values: dict[str, Any] = field(default_factory=dict)
    typed: frozenset[str] = frozenset()
    """Names of all that stood on the command line itself, not in the environment or a file."""

    def settings(self, group: type[S]) -> S:
        """Resolve one settings group: defaults < config file < flags."""
        return resolve(group, self.file_values, self.flags)

    def refuse_for_pool(self, allowed: Collection[str], *groups: type[Settings]) -> None:
        """Refuse flags of these groups that were typed though the pool has settled them.

        Raises:
            SettingsError: with their names.
        """
        settled = [name for group in groups for name in group.model_fields if name not in allowed]
        if "repair" in settled and "repair" in self.typed:
            raise SettingsError(
                "--repair does nothing where a pool is only read",
                where=self.source,
                next_step="give it to the command that made the pool; damaged scores are also "
                f"made again by `bon score {self.source} -r NAME=SPEC --repair`",
            )
        idle = [f"--{name.replace('_', '-')}" for name in settled if name in self.typed]
        if idle:
            raise SettingsError(
                f"the source is a pool, for which these flags do nothing: {', '.join(idle)}",
                where=self.source,
                why="what they decide is in the pool already",
                next_step="leave them out, or give the prompt file as the source; "
                f"`bon score {self.source} -r NAME=SPEC` adds a scorer",
            )

    def refuse_for_strategy(self, own: Mapping[str, Collection[str]], strategy: str) -> None:
        """Refuse flags that were typed though only another strategy reads them.

        `own` holds, by strategy, the settings that it alone has a use for.

        Raises:
            SettingsError: with the first of them and its strategy.
        """
        for owner, names in own.items():
            for name in names:
                if name in self.typed and strategy != owner:
                    raise SettingsError(
                        f"--{name.replace('_', '-')} does nothing for --strategy {strategy}",
                        next_step=f"leave it out, or give --strategy {owner}",
                    )

    def given(self, name: str) -> bool:
        """Tell whether a setting was said, on the command line or in the file."""
        return self.flags.get(name) is not None or name in self.file_values


def command(
    app: typer.Typer,
    name: str,
    *groups: type[Settings],
    source_help: str,
    examples: Sequence[str],
    panel: str,
    output_help: str | None = None,
    extra: Sequence[inspect.Parameter] = (),
    has_dry_run: bool = True,
    run: Callable[[Callable[[], None], bool], None],
) -> Callable[[Callable[[Invocation], None]], Callable[[Invocation], None]]:
    """Register a function of one `Invocation` as a command with all flags of its groups.

    `run` calls the body inside the error boundary; its second argument is `--debug`.
    """

    def register(body: Callable[[Invocation], None]) -> Callable[[Invocation], None]:
        def call(context: typer.Context, **given: Any) -> None:
            debug = given.pop("debug")
            typed = frozenset(name for name in given if _is_typed(context, name))

            def inner() -> None:
                invocation = _invocation(name, given, typed)
                with reasons_to(note) if invocation.verbose else nullcontext():
                    body(invocation)

            run(inner, debug)

        parameters = [_context(), _source(source_help), *_common(output_help, has_dry_run), *extra]
        parameters += [
            _parameter(key, info, group.panel)
            for group in groups
            for key, info in group.model_fields.items()
        ]
        call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        call.__annotations__ = {p.name: p.annotation for p in parameters}
        epilog = "\n\n".join(["[bold]Examples[/bold]", *(f"[cyan]{e}[/cyan]" for e in examples)])
        app.command(
            name, help=_paragraphs(inspect.getdoc(body) or ""), epilog=epilog, rich_help_panel=panel
        )(call)
        return body

    return register


def option(
    name: str,
    kind: Any,
    text: str,
    *declarations: str,
    default: Any = None,
    panel: str = "Options",
    metavar: str | None = None,
) -> inspect.Parameter:
    """Build a flag of a command's own, one that is no setting."""
    annotation = Annotated[
        kind,
        typer.Option(
            *declarations, help=text, rich_help_panel=panel, show_default=False, metavar=metavar
        ),
    ]
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
    )


def _invocation(command: str, given: dict[str, Any], typed: frozenset[str]) -> Invocation:
    config: Path | None = given.pop("config")
    own = {k: given.pop(k, None) for k in ("source", "output", "dry_run", "as_json")}
    quiet, verbose = given.pop("quiet"), given.pop("verbose")
    for value in (config, own["source"], own["output"], *given.values()):
        if isinstance(value, str | Path):
            refuse_undecodable(str(value))
    flags = {key: _from_typer(key, value) for key, value in given.items()}
    return Invocation(
        source=str(own["source"] or ""),
        output=None if own["output"] is None else place(own["output"]),
        dry_run=bool(own["dry_run"]),
        as_json=bool(own["as_json"]),
        quiet=quiet,
        verbose=verbose,
        flags=flags,
        file_values=read_config_file(config, command, known_keys()) if config else {},
        typed=typed,
    )


def _from_typer(key: str, value: Any) -> Any:
    if value == [] or value is None:
        return None
    if key == "engine_args":
        return dict(_key_value(item) for item in value)
    return tuple(value) if isinstance(value, list) else value


def _key_value(item: str) -> tuple[str, Any]:
    key, equals, text = item.partition("=")
    if not equals or not key:
        raise SettingsError(
            f"bad value for --engine-args: {item!r}", next_step="give KEY=VALUE, VALUE as JSON"
        )
    try:
        return key.replace("-", "_"), json.loads(text)
    except ValueError:
        return key.replace("-", "_"), text


def _is_typed(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _context() -> inspect.Parameter:
    return inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)


def _source(text: str) -> inspect.Parameter:
    annotation = Annotated[str, typer.Argument(help=text, show_default=False, metavar="SOURCE")]
    return inspect.Parameter("source", inspect.Parameter.KEYWORD_ONLY, annotation=annotation)


def _common(output_help: str | None, has_dry_run: bool) -> list[inspect.Parameter]:
    output = [option("output", str | None, output_help or "", "-o", "--output", metavar="<path>")]
    dry_run = option(
        "dry_run", bool, "Show what would be done and with which settings, and stop.",
        "--dry-run", default=False,
    )  # fmt: skip
    return [
        *(output if output_help else []),
        option("config", Path | None, "TOML file of settings, keys as the flags; flags win."),
        *([dry_run] if has_dry_run else []),
        option("as_json", bool, "Print one JSON object on stdout.", "--json", default=False),
        option("quiet", bool, "Print only errors.", "-q", "--quiet", default=False),
        option("verbose", bool, "Say what is done and why, and let the engines print to stderr.",
               "-v", "--verbose", default=False),
        option("debug", bool, "Show the trace of an error.", "--debug", default=False),
    ]  # fmt: skip


def _parameter(name: str, info: FieldInfo, panel: str) -> inspect.Parameter:
    said = next((item for item in info.metadata if isinstance(item, Flag)), Flag())
    flag = f"--{name.replace('_', '-')}"
    kind = _typer_type(info.annotation)
    is_place = ObjectPath in _leaves(info.annotation)
    if kind is bool:
        flag = f"{flag}/--no-{name.replace('_', '-')}"
    optional: Any = Union[kind, None]  # noqa: UP007  (a Literal has no |)
    annotation = Annotated[
        optional,
        typer.Option(
            *([said.short] if said.short else []),
            flag,
            help=f"{info.description} {_shown_default(info.default)}".strip(),
            envvar=said.env or None,
            show_envvar=bool(said.env),
            show_default=False,
            rich_help_panel=panel,
            metavar="<path>" if is_place else None,
        ),
    ]
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation
    )


def _leaves(annotation: Any) -> set[Any]:
    """Return the types that a union is made of."""
    inner = get_args(annotation)
    return {leaf for one in inner for leaf in _leaves(one)} if inner else {annotation}


def _typer_type(annotation: Any) -> Any:
    """Return what typer should parse: the field's type without none; tuples and dicts as lists."""
    if ObjectPath in _leaves(annotation):
        return str  # a path would make one slash of the two in `s3://`
    if get_origin(annotation) in (types.UnionType, Union):
        annotation = next(item for item in get_args(annotation) if item is not type(None))
    if get_origin(annotation) in (tuple, dict):
        return list[str]
    return annotation


def _shown_default(default: Any) -> str:
    if default is PydanticUndefined or default is None or default is False or default in ((), {}):
        return ""
    return f"(default {', '.join(default) if isinstance(default, tuple) else default})"


def _paragraphs(text: str) -> str:
    """Join the lines of each paragraph: the terminal's width breaks them, not the source's."""
    return "\n\n".join(" ".join(part.split()) for part in text.split("\n\n"))
