"""What is registered, in words: a sentence for each thing; of each setting what it takes, its default, its meaning.

The command `relearn list` and the page of all settings both show this. Everything is read from the source text.
"""

import ast
import json
import re
from functools import lru_cache
from pathlib import Path

from relearn.registry import discovery, settings
from relearn.registry.discovery import KINDS, Entry
from relearn.registry.sections import COMMON
from relearn.registry.settings import REQUIRED, Setting
from relearn.registry.sources import imports, relative

#: what the settings mean that all entries of a section have
COMMON_WORDS = {
    "ratio": "The share of the training images that is poisoned.",
    "recipe": "Settings that hold in place of those of `train:` wherever this network is trained.",
    "epochs": "Epochs of training; null for those of the recipe.",
}
#: types whose comment in registry/settings.py says what a setting means; of the others it says only what they take
TELLING = ("Seed", "CellName", "InputPath", *settings.NAMED)
#: what a setting of this name means wherever its docstring does not say more
WORDS = {
    "batch": "Images per step.",
    "confidence": "The share of such intervals that hold the true value.",
    "crop_pad": "Pixels of padding of the random crops that the surrogate is trained on.",
    "epochs": "Epochs of training.",
    "flip": "Whether images that the surrogate is trained on are mirrored at random.",
    "kind": "What the file holds.",
    "lr": "Learning rate.",
    "methods": "The methods that are shown.",
    "momentum": "Momentum of the optimizer.",
    "network": "The kind of network that it is crafted on.",
    "norm": "The norm that `epsilon` bounds.",
    "rounding": "How values become whole numbers.",
    "rounds": "How often the whole is repeated, at most.",
    "size": "Pixels along a side.",
    "step_size": "The change of a value in one step (1/255).",
    "steps": "Steps of the optimisation, for each image.",
    "test_per_class": "Test images of each class, a subset drawn with `seed`; null for all.",
    "train_per_class": "Training images of each class, a subset drawn with `seed`; null for all.",
    "width": "The width of the network.",
}
MOST_SENTENCES = 2
_TYPE = re.compile(r"^(\w+) = \(?\s*\w+\s+#: (.+)$", re.MULTILINE)
_CODE = re.compile(r"`([^`]*)`")


def split(doc: str) -> tuple[str, str]:
    """The first sentence of a docstring, and the rest."""
    first = re.match(r"(.+?[.!?])(?=\s|$)(?<!e\.g\.)(?<!i\.e\.)(?<!al\.)", doc, flags=re.DOTALL)
    end = first.end() if first else len(doc)
    return " ".join(doc[:end].split()), doc[end:].strip()


def sentences(doc: str) -> list[str]:
    """All sentences of a docstring, each on one line."""
    found = []
    while doc:
        first, doc = split(doc)
        found.append(first)
    return found


def accepts(annotation: str) -> str:
    """What a setting with this annotation takes, in words with bounds; values as code."""
    return _words(ast.parse(annotation, mode="eval").body)


def default(setting: Setting) -> str | None:
    """The default of a setting as params.yaml spells it; None where the setting is required."""
    if setting.default is REQUIRED:
        return None
    text = setting.default
    return text if isinstance(text, str) and text else json.dumps(text)


def meanings(kind: str, entry: Entry) -> dict[str, str]:
    """What each setting means: the sentences that name it, of the thing's docstring or of one that it builds on.

    Else those of a docstring in the same file, or of a file of the same folder that it imports; else what the type of
    the setting means, or its name (`WORDS`). Empty for a setting that nothing explains.
    """
    docs = [entry.doc, *_file_docs(entry.path)]
    docs += [doc for path in imports(entry.path) if path.parent == entry.path.parent for doc in _file_docs(path)]
    found = {setting.name: _meaning(setting, docs) for setting in entry.settings}
    return {setting.name: COMMON_WORDS[setting.name] for setting in COMMON.get(kind, ())} | found


def declared(kind: str, entry: Entry) -> tuple[Setting, ...]:
    """All settings of a thing, its own and those that every entry of its section has, each once."""
    return tuple({setting.name: setting for setting in reversed(entry.settings + COMMON.get(kind, ()))}.values())[::-1]


def described(kind: str, name: str) -> dict:
    """Everything that is said of a registered thing, ready for JSON. Raises UserError for an unknown name."""
    entry = discovery.entry(kind, name)
    said = meanings(kind, entry)
    summary, rest = split(entry.doc)
    return {
        "kind": kind,
        "name": name,
        "summary": summary,
        "description": rest,
        "source": " ".join((ast.get_docstring(_parsed(entry.path)) or "").split()),
        "file": relative(entry.path),
        "layer_groups": list(entry.groups),
        "settings": [
            {
                "name": setting.name,
                "type": setting.annotation,
                "accepts": accepts(setting.annotation).replace("`", ""),
                "required": setting.default is REQUIRED,
                "default": None if setting.default is REQUIRED else setting.default,
                "meaning": said[setting.name],
            }
            for setting in declared(kind, entry)
        ],
    }


def summaries(kind: str) -> dict[str, str]:
    """The first sentence of every thing registered under `kind`, by name."""
    assert kind in KINDS, kind
    return {name: split(entry.doc)[0] for name, entry in discovery.entries(kind).items()}


def _meaning(setting: Setting, docs: list[str]) -> str:
    for doc in docs:
        named = [text for text in sentences(doc) if setting.name in _named(text) and not text.startswith("Raises ")]
        if named:
            return " ".join(named[:MOST_SENTENCES])
    kind = setting.kind.removeprefix("list[").removesuffix("]")
    said = _types()[kind] if kind in TELLING else WORDS.get(setting.name, "")
    return said[:1].upper() + said[1:] + ("" if not said or said.endswith(".") else ".")


def _named(sentence: str) -> set[str]:
    """The words in the code of a sentence: `rounding: em_legacy` names `rounding` too."""
    return {word for code in _CODE.findall(sentence) for word in re.findall(r"\w+", code)}


def _file_docs(path: Path) -> list[str]:
    body = _parsed(path).body
    found = [ast.get_docstring(node) for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    return [doc for doc in found if doc]


@lru_cache
def _parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@lru_cache
def _types() -> dict[str, str]:
    """The comment on each type of registry/settings.py, by its name."""
    return dict(_TYPE.findall(Path(settings.__file__).read_text(encoding="utf-8")))


def _words(annotation: ast.expr) -> str:
    if isinstance(annotation, ast.BinOp):  # X | None
        return f"{_words(annotation.left)}, or `null`"
    if isinstance(annotation, ast.Subscript) and ast.unparse(annotation.value) == "Literal":
        choices = annotation.slice.elts if isinstance(annotation.slice, ast.Tuple) else [annotation.slice]
        return " or ".join(f"`{ast.literal_eval(choice)}`" for choice in choices)
    if isinstance(annotation, ast.Subscript):  # list[X]
        return f"a list; each item: {_words(annotation.slice)}"
    return settings.TYPES[ast.unparse(annotation)][0]
