"""Writes docs/commands.md from the parsers of `genu` and `genu-train`: `python -m tests.reference --write`.

It lives with the tests because nothing else may know both packages. Without --write it only says whether the page is
current (exit status 1 when not).
"""

import argparse
import sys
from pathlib import Path

import plugin.cli
import training.cli

PAGE = Path(__file__).resolve().parents[1] / "docs" / "commands.md"
HEAD = """# Commands

Made from the parsers by `make docs`; do not edit.

Exit status of every command: 0 done, 1 something failed, 2 wrong use, 130 interrupted.
The settings behind the options: [settings.md](settings.md). What `genu score` writes: [results.md](results.md).
"""


def render() -> str:
    """The whole page."""
    parts = [HEAD]
    for parser in parsers():
        parts.append(f"\n## {parser.prog}\n\n{parser.description}\n")
        sentences = summaries(parser)
        parts += [_command(command, sentences[name]) for name, command in subcommands(parser).items()]
    return "".join(parts)


def parsers() -> tuple[argparse.ArgumentParser, ...]:
    """The command lines that there are."""
    return plugin.cli.build_parser(), training.cli.parser()


def subcommands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The commands of a parser by name, as in "readers draw"; argparse offers no public way to them."""
    found: dict[str, argparse.ArgumentParser] = {}
    for action in _groups(parser):
        for name, command in action.choices.items():
            below = subcommands(command)
            found |= {f"{name} {one}": two for one, two in below.items()} or {name: command}
    return found


def summaries(parser: argparse.ArgumentParser) -> dict[str, str]:
    """The sentence that a parser says of each of its commands."""
    found: dict[str, str] = {}
    for action in _groups(parser):
        for choice in action._choices_actions:
            below = summaries(action.choices[choice.dest])
            found |= {f"{choice.dest} {one}": text for one, text in below.items()} or {choice.dest: choice.help or ""}
    return found


def _groups(parser: argparse.ArgumentParser) -> list[argparse._SubParsersAction]:
    return [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]


def options(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """What a command takes, --help left out."""
    return [action for action in parser._actions if not isinstance(action, argparse._HelpAction)]


def _command(parser: argparse.ArgumentParser, sentence: str) -> str:
    lines = [f"\n### {parser.prog}\n", f"{sentence[:1].upper()}{sentence[1:]}.\n"]
    if rows := [_row(action) for action in options(parser)]:
        lines += ["| argument | meaning |", "|---|---|", *rows, ""]
    return "\n".join(lines)


def _row(action: argparse.Action) -> str:
    value = action.metavar or (action.dest.upper() if action.nargs != 0 else "")
    value = value if isinstance(value, str) else " ".join(value)
    if action.choices is not None and action.metavar is None:
        value = "{" + ",".join(map(str, action.choices)) + "}"
    names = ", ".join(
        f"`{option} {value}`" if value and action.nargs != 0 else f"`{option}`" for option in action.option_strings
    )
    meaning = (action.help or "") % {"default": action.default} if action.help else ""
    required = " **(required)**" if action.required and action.option_strings else ""
    repeated = "…" if action.nargs in ("+", "*") and not action.option_strings else ""
    return f"| {names or f'`{value}`{repeated}'} | {meaning}{required} |".replace("\\", "\\\\")


def main() -> int:
    """Write the page, or say whether it is current."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--write", action="store_true", help="write docs/commands.md")
    if parser.parse_args().write:
        PAGE.write_text(render(), encoding="utf-8")
        return 0
    current = PAGE.exists() and PAGE.read_text(encoding="utf-8") == render()
    print("docs/commands.md is", "current" if current else "out of date: make docs")
    return 0 if current else 1


if __name__ == "__main__":
    sys.exit(main())
