"""Wrong params: every error in one message, with the value found, the choices and the closest spelling."""

import pytest
import yaml

from helpers.params_text import GOOD, edited
from relearn import grid, params
from relearn.errors import UserError

# What is written instead of what, and what the one error must say.
ERRORS = {
    "unknown poison in grid": (
        "[clean, hypo]",
        "[clean, hypoo]",
        "unknown poison 'hypoo' in grid.main; known: clean, em, hypo (did you mean 'hypo'?)",
    ),
    "unknown dataset in grid": (
        "[digits]",
        "[digit]",
        "unknown dataset 'digit' in grid.main; known: digits (did you mean 'digits'?)",
    ),
    "number for a name in grid": ("[digits]", "[7]", "unknown dataset 7 in grid.main; known: digits"),
    "list for a name in grid": ("[digits]", "[[digits]]", "unknown dataset ['digits'] in grid.main; known: digits"),
    "mapping for a name in grid": (
        "[clean, hypo]",
        "[clean, hypo: {}]",
        "unknown poison {'hypo': {}} in grid.main; known: clean, em, hypo",
    ),
    "misspelt key in train": (
        "{epochs: 2",
        "{epoch: 2",
        "train: unknown setting 'epoch'; known: batch, ",
        "(did you mean 'epochs'?)",
    ),
    "misspelt setting": (
        "{width: 4}",
        "{widht: 4}",
        "architectures.cnn: unknown setting 'widht'; known: recipe, width (did you mean 'width'?)",
    ),
    "misspelt key in compute": (
        "{threads: 1}",
        "{thread: 1}",
        "compute: unknown setting 'thread'",
        "(did you mean 'threads'?)",
    ),
    "text for a count": (
        "epochs: 2",
        "epochs: two",
        "train.epochs: must be a whole number from 1 to 1,000,000, found 'two'",
    ),
    "zero for a count": ("epochs: 2", "epochs: 0", "train.epochs: must be a whole number from 1 to 1,000,000, found 0"),
    "truth for a count": (
        "epochs: 2",
        "epochs: true",
        "train.epochs: must be a whole number from 1 to 1,000,000, found True",
    ),
    "fraction for a count": (
        "epochs: 2",
        "epochs: 2.5",
        "train.epochs: must be a whole number from 1 to 1,000,000, found 2.5",
    ),
    "nothing for a count": (
        "epochs: 2",
        "epochs: ",
        "train.epochs: must be a whole number from 1 to 1,000,000, found None",
    ),
    "negative rate": ("batch: 64", "lr: -0.1", "train.lr: must be a number above 0, from 1e-9 to 1e9, found -0.1"),
    "no number": ("batch: 64", "lr: .nan", "train.lr: must be a number above 0, from 1e-9 to 1e9, found nan"),
    "infinite number": (
        "batch: 64",
        "weight_decay: .inf",
        "train.weight_decay: must be a number from 0 to 1e9, found inf",
    ),
    "number for a truth": ("batch: 64", "flip: 1", "train.flip: must be true or false, found 1"),
    "share above one": ("erm: {}", "erm: {gray: 1.5}", "methods.erm.gray: must be a number from 0 to 1, found 1.5"),
    "unknown choice": (
        "threads: 1",
        "precision: float16",
        "compute.precision: found 'float16'; known: bfloat16, float32 (did you mean 'bfloat16'?)",
    ),
    "number for a list": (
        "pst: {}",
        "pst: {full_rate_groups: 2}",
        "methods.pst.full_rate_groups: must be a list, found 2",
    ),
    "wrong item in a list": (
        "pst: {}",
        "pst: {full_rate_groups: [2, 0]}",
        "methods.pst.full_rate_groups: must be a whole number from 1 to 1,000, found 0",
    ),
    "text for a number": (
        "pst: {}",
        "pst: {rate: fast}",
        "methods.pst.rate: must be a number from 0 to 1, found 'fast'",
    ),
    "empty list": ("[clean, hypo]", "[]", "grid.main.poisons must be a list of at least one, or all, found []"),
    "name for a list": (
        "[clean, hypo]",
        "clean",
        "grid.main.poisons must be a list of at least one, or all, found 'clean'",
    ),
    "missing axis": ("methods: all, ", "", "grid.main.methods must be a list of at least one, or all, found None"),
    "misspelt axis": (
        "seeds: [0, 1]",
        "seeds: [0], seed: [1]",
        "grid.main: unknown key 'seed'; known: ",
        "(did you mean 'seeds'?)",
    ),
    "no seeds": ("seeds: [0, 1]", "seeds: []", "grid.main.seeds must be a list of at least one, found []"),
    "all seeds": ("seeds: [0, 1]", "seeds: all", "grid.main.seeds must be a list of at least one, found 'all'"),
    "negative seed": (
        "seeds: [0, 1]",
        "seeds: [0, -1]",
        "grid.main.seeds: a seed is a whole number, 0 or more, below 2^63, found -1",
    ),
    "fraction for a seed": (
        "seeds: [0, 1]",
        "seeds: [0.5]",
        "grid.main.seeds: a seed is a whole number, 0 or more, below 2^63, found 0.5",
    ),
    "true seed": (
        "seeds: [0, 1]",
        "seeds: [true]",
        "grid.main.seeds: a seed is a whole number, 0 or more, below 2^63, found True",
    ),
    "seed as text": (
        "seeds: [0, 1]",
        "seeds: ['0']",
        "grid.main.seeds: a seed is a whole number, 0 or more, below 2^63, found '0'",
    ),
    "missing required setting": (
        "hypo: {surrogate: small}",
        "hypo: {}",
        "poisons.hypo: setting 'surrogate' is missing",
    ),
    "unknown surrogate": (
        "{surrogate: small}",
        "{surrogate: smal}",
        "poisons.hypo.surrogate: 'smal' is not in surrogates; known: small (did you mean 'small'?)",
    ),
    "unknown architecture of a poison": (
        "em: {arch: cnn}",
        "em: {arch: cn}",
        "poisons.em.arch: 'cn' is not in architectures; known: cnn (did you mean 'cnn'?)",
    ),
    "default architecture of a poison": (
        "em: {arch: cnn}",
        "em: {}",
        "poisons.em.arch: 'resnet18' is not in architectures; known: cnn",
    ),
    "unknown pretraining": (
        "erm: {}",
        "erm: {use: frozen_pretrained, pretraining: stage}",
        "methods.erm.pretraining: 'stage' is not in pretraining; known: none",
    ),
    "unknown architecture of a surrogate": (
        "small: {arch: cnn}",
        "small: {arch: can}",
        "surrogates.small.arch: 'can' is not in architectures",
        "did you mean 'cnn'",
    ),
    "surrogate without architecture": (
        "small: {arch: cnn}",
        "small: {}",
        "surrogates.small: setting 'arch' is missing",
    ),
    "unknown name": (
        "em: {arch: cnn}",
        "emm: {arch: cnn}",
        "unknown poison 'emm' in poisons; known: ",
        "(did you mean 'em'?)",
    ),
    "unknown use": (
        "pst: {}",
        "pst_cg: {use: pts}",
        "unknown method 'pts' in methods; known: ",
        "(did you mean 'pst'?)",
    ),
    "unknown table": ("accuracy: {}", "acuracy: {}", "unknown table 'acuracy' in tables", "(did you mean 'accuracy'?)"),
    "unknown section": (
        "compute:",
        "compuet:",
        "unknown section 'compuet'; known: architectures, ",
        "(did you mean 'compute'?)",
    ),
    "bad name": (
        "  erm: {}",
        "  erm: {}\n  My-ERM: {use: erm}",
        "methods.My-ERM: a name is lower-case letters, digits and underscores and begins with a letter",
    ),
    "number for settings": ("cnn: {width: 4}", "cnn: 4", "architectures.cnn must be a mapping of settings, found 4"),
    "list for a block": (
        "main: {",
        "other: [clean]\n  main: {",
        "grid.other must be a mapping with datasets, poisons, architectures, methods, seeds, found ['clean']",
    ),
}


def wrong(tmp_path, text: str) -> str:
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(UserError) as error:
        params.load(tmp_path / "params.yaml")
    return str(error.value)


def test_the_params_all_errors_start_from_are_good(tmp_path):
    (tmp_path / "params.yaml").write_text(GOOD)
    checked = params.load(tmp_path / "params.yaml")
    assert [str(cell) for cell in grid.cells(checked)] == [
        f"digits/{poison}/cnn/{method}/{seed}"
        for poison in ("clean", "hypo")
        for method in ("erm", "pst")
        for seed in (0, 1)
    ]


@pytest.mark.parametrize("change", ERRORS.values(), ids=ERRORS)
def test_one_error_is_one_line(change, tmp_path):
    old, new, *parts = change
    message = wrong(tmp_path, edited((old, new)))
    assert message.startswith(f"{tmp_path / 'params.yaml'}: {parts[0]}")
    assert all(part in message for part in parts) and "\n" not in message


def test_all_errors_are_told_at_once(tmp_path):
    names = ["unknown poison in grid", "misspelt key in train", "true seed"]
    names += ["unknown architecture of a poison", "unknown section", "misspelt setting"]
    message = wrong(tmp_path, edited(*(ERRORS[name][:2] for name in names)))
    assert "params.yaml has 6 errors: (1) " in message and "\n" not in message
    for name in names:
        assert any(f"({number}) {ERRORS[name][2]}" in message for number in range(1, 7)), name


@pytest.mark.parametrize("section", ["datasets", "poisons", "architectures", "methods", "grid"])
@pytest.mark.parametrize("content", ["{}", "", "[]", None])
def test_a_section_that_every_grid_needs(section, content, tmp_path):
    raw = yaml.safe_load(GOOD)
    del raw[section]
    text = yaml.safe_dump(raw) + (f"{section}: {content}\n" if content is not None else "")
    assert f"section '{section}' is missing or empty" in wrong(tmp_path, text)


@pytest.mark.parametrize("section", ["compute", "train", "datasets", "surrogates", "grid", "tables"])
def test_a_section_of_another_form(section, tmp_path):
    raw = yaml.safe_load(GOOD) | {section: ["digits"]}
    assert f"{section} must be a mapping of names to settings, found list" in wrong(tmp_path, yaml.safe_dump(raw))


@pytest.mark.parametrize(
    "text, part",
    [
        ("", "must be a mapping with the sections compute, train, datasets, "),
        ("- digits\n", "found list"),
        ("train: {epochs: 2\n", "is not YAML"),
        (edited(("  clean: {}", "  clean: {}\n  clean: {}")), "duplicate key 'clean'"),
        (edited(("{epochs: 2, ", "{epochs: 2, epochs: 3, ")), "duplicate key 'epochs'"),
        (edited(("grid:", "train: {}\ngrid:")), "duplicate key 'train'"),
        ("train: !!python/object/apply:os.getcwd []\n", "is not YAML"),  # no code from a params file
    ],
)
def test_no_yaml_or_none_of_ours(text, part, tmp_path):
    message = wrong(tmp_path, text)
    assert part in message and "\n" not in message


def test_a_duplicate_key_is_told_with_its_line(tmp_path):
    assert "line 7" in wrong(tmp_path, edited(("  clean: {}", "  clean: {}\n  clean: {}")))


@pytest.mark.parametrize("section", ["compute", "train", "surrogates", "tables", "figures"])
@pytest.mark.parametrize("content", ["[]", "0", "false", "''"])
def test_an_empty_section_of_another_form_is_no_empty_mapping(section, content, tmp_path):
    raw = yaml.safe_load(GOOD)
    del raw[section]
    text = yaml.safe_dump(raw) + f"{section}: {content}\n"
    assert f"{section} must be a mapping of names to settings" in wrong(tmp_path, text)


def test_a_grid_that_no_engine_could_expand(tmp_path):
    seeds = f"seeds: [{', '.join(map(str, range(30_000)))}]"
    assert "grid has 120,000 cells; at most 100,000" in wrong(tmp_path, edited(("seeds: [0, 1]", seeds)))
