"""The command line: parsers whose errors are one line like any other, and help in groups, each with an example."""

import argparse
import textwrap
from typing import NoReturn

from relearn.errors import UserError
from relearn.registry import suggest

WIDTH = 100  # characters of a line of help


class Parser(argparse.ArgumentParser):
    """A parser whose errors are a user's mistake like any other: one line, without the usage."""

    def __init__(self, **settings):
        super().__init__(**({"formatter_class": argparse.RawDescriptionHelpFormatter} | settings))

    def error(self, message: str) -> NoReturn:
        """Raises UserError in place of ending the process."""
        raise UserError(f"{message}; {self.prog} --help says what it takes")

    def _check_value(self, action: argparse.Action, value: object) -> None:
        """Like argparse, with the most similar choice in place of all of them."""
        if action.choices is not None and value not in action.choices:
            raise argparse.ArgumentError(action, f"invalid choice: {value!r}; {suggest(value, action.choices)}")


class Commands:
    """The commands of a parser. Its help lists them in `groups`, in their order: a heading each, by a short name."""

    def __init__(self, parser: Parser, groups: dict[str, str]):
        self.parser, self.groups = parser, groups
        parser.usage = f"{parser.prog} [-h] [--version] COMMAND ..."
        self.parsers = parser.add_subparsers(
            required=True, metavar="COMMAND", help=argparse.SUPPRESS, prog=parser.prog, parser_class=Parser
        )
        self.listed: dict[str, dict[str, str]] = {group: {} for group in groups}

    def add(self, group: str, name: str, sentence: str, example: str, more: str = "") -> Parser:
        """A new command of a group: what it does in a sentence, an example, and `more` for its own help alone."""
        text = textwrap.fill(f"{sentence} {more}".strip(), WIDTH)
        command = self.parsers.add_parser(name, description=text, epilog=f"example:\n  {example}")
        self.listed[group][name] = sentence
        self.parser.epilog = self._text()
        return command

    def _text(self) -> str:
        """The commands by group, a line or more for each."""
        width = max(len(name) for names in self.listed.values() for name in names) + 2
        parts = []
        for group, names in self.listed.items():
            if names:
                lines = [_entry(name, sentence, width) for name, sentence in names.items()]
                parts.append("\n".join([f"{self.groups[group]}:", *lines]))
        last = "`relearn COMMAND --help` says what a command takes, with an example."
        return "\n\n".join([*parts, last])


def positive(kind: type):
    """A reader of numbers above 0 for the command line."""

    def number(text: str):
        if not 0 < (value := kind(text)) < float("inf"):
            raise ValueError(text)
        return value

    number.__name__ = "positive " + {int: "whole number", float: "number"}[kind]
    return number


def natural(text: str) -> int:
    """A reader of whole numbers from 0 for the command line."""
    if (value := int(text)) < 0:
        raise ValueError(text)
    return value


natural.__name__ = "whole number from 0"  # so argparse calls it


def _entry(name: str, sentence: str, width: int) -> str:
    return textwrap.fill(f"  {name:<{width}}{sentence}", WIDTH, subsequent_indent=" " * (width + 2))
