"""YAML as DVC reads it, version 1.2, with bounds: what would hang or surprise is an error with its line."""

import re
from collections.abc import Callable
from pathlib import Path

import yaml

from relearn.errors import UserError, shown

MOST_BYTES = 200_000
MOST_VALUES = 100_000  # with every alias written out
MOST_DEPTH = 50
TAG = "tag:yaml.org,2002:"
MERGE = f"{TAG}merge"


class Loader(yaml.SafeLoader):
    """PyYAML's safe loader, but by YAML 1.2: `010` is 10; `1:30`, `no` and dates are text; 5e-4 is a number.

    Merge keys (`<<`) are taken. A duplicate key, a value that contains itself, more than `MOST_DEPTH` levels and more
    than `MOST_VALUES` values are errors; so are tags beyond those of numbers, texts, lists and mappings.
    """

    yaml_implicit_resolvers: dict = {}
    yaml_constructors: dict = {None: yaml.SafeLoader.construct_undefined}

    def __init__(self, stream):
        super().__init__(stream)
        self.depth = 0
        self.sizes: dict[int, int] = {}  # values in each node, by its id; a node is in it when it is complete

    def compose_node(self, parent, index):
        """The next node, within the bounds."""
        event = self.peek_event()
        if self.depth == MOST_DEPTH:
            raise _error(f"values are nested more than {MOST_DEPTH} deep", event.start_mark)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        if isinstance(event, yaml.AliasEvent):
            if id(node) not in self.sizes:
                raise _error(f"'{event.anchor}' contains itself", event.start_mark)
        else:
            self.sizes[id(node)] = 1 + sum(self.sizes[id(part)] for part in _parts(node))
            if self.sizes[id(node)] > MOST_VALUES:
                raise _error(f"it stands for more than {MOST_VALUES:,} values", event.start_mark)
        return node

    def compose_mapping_node(self, anchor):
        """The next mapping. Raises ConstructorError for a duplicate key."""
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != MERGE:
                if (key.tag, key.value) in seen:
                    raise _error(f"duplicate key '{key.value}'", key.start_mark)
                seen.add((key.tag, key.value))
        return node


def read_yaml(path: Path):
    """The content of a YAML file. Raises OSError, and UserError for a file that is too large, not UTF-8 or not YAML."""
    with open(path, "rb") as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise UserError(f"{path} has more than {MOST_BYTES:,} bytes; shorten it")
    try:
        return yaml.load(content.decode("utf-8-sig"), Loader=Loader)  # noqa: S506, a subclass of SafeLoader
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 (byte {error.start} cannot be read); save it as UTF-8") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise UserError(f"{path} is not YAML: {where}{error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not YAML: {error}") from None


def _parts(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return node.value if isinstance(node, yaml.SequenceNode) else []


def _error(problem: str, mark: yaml.Mark) -> yaml.MarkedYAMLError:
    return yaml.constructor.ConstructorError(None, None, problem, mark)


def _scalar(words: str, convert: Callable[[str], object]) -> Callable:
    """A constructor of a plain value; `words` says what it makes."""

    def construct(loader: Loader, node: yaml.ScalarNode):
        text = loader.construct_scalar(node)
        try:
            return convert(text)
        except (ValueError, KeyError):  # of a tag that is given, or of thousands of digits
            raise _error(f"{shown(text)} cannot be read as {words}", node.start_mark) from None

    return construct


def _mapping(loader: Loader, node: yaml.Node):
    if not isinstance(node, yaml.MappingNode):
        raise _error("a mapping was expected", node.start_mark)
    yield from loader.construct_yaml_map(node)


def _whole(text: str) -> int:
    digits = text.replace("_", "")
    base = {"0x": 16, "0o": 8}.get(digits.lstrip("-+")[:2], 10)
    return int(digits, base)


def _number(text: str) -> float:
    name = text.lower().lstrip("-+")
    return float(text.replace(".", "", 1)) if name in (".inf", ".nan") else float(text.replace("_", ""))


_TRUTHS = {spelling: word == "true" for word in ("true", "false") for spelling in (word, word.title(), word.upper())}
_PLAIN = {  # tag: pattern of a plain scalar, its first characters, constructor
    "null": (r"~|null|Null|NULL|", ["~", "n", "N", ""], _scalar("null", lambda text: None)),
    "bool": ("|".join(_TRUTHS), list("tTfF"), _scalar("true or false", _TRUTHS.__getitem__)),
    "int": (r"[-+]?[0-9][0-9_]*|0x[0-9a-fA-F]+|0o[0-7]+", list("-+0123456789"), _scalar("a whole number", _whole)),
    "float": (
        r"[-+]?([0-9][0-9_]*(\.[0-9_]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+.0123456789"),
        _scalar("a number", _number),
    ),
    "merge": ("<<", ["<"], _scalar("a text", str)),
}
for _name, (_pattern, _first, _construct) in _PLAIN.items():
    Loader.add_implicit_resolver(f"{TAG}{_name}", re.compile(f"^(?:{_pattern})$"), _first)
    Loader.add_constructor(f"{TAG}{_name}", _construct)
Loader.add_constructor(f"{TAG}str", _scalar("a text", str))
Loader.add_constructor(f"{TAG}seq", Loader.construct_yaml_seq)
Loader.add_constructor(f"{TAG}map", _mapping)
