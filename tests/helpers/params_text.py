"""A params.yaml without errors, to put one in."""

GOOD = """\
compute: {threads: 1}
train: {epochs: 2, batch: 64}
datasets:
  digits: {copies: 1}
poisons:
  clean: {}
  hypo: {surrogate: small}
  em: {arch: cnn}
surrogates:
  small: {arch: cnn}
architectures:
  cnn: {width: 4}
methods:
  erm: {}
  pst: {}
grid:
  main: {datasets: [digits], poisons: [clean, hypo], architectures: [cnn], methods: all, seeds: [0, 1]}
tables:
  accuracy: {}
figures:
  gallery: {}
"""
CELL = "digits/clean/cnn/erm/0"


def edited(*changes: tuple[str, str]) -> str:
    """GOOD with every first text replaced by the second."""
    text = GOOD
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    return text


CELL_PARAMS = """\
compute: {threads: 1}
train: {epochs: EPOCHS, batch: 64, warmup_steps: 1, probe_size: 40, crop_pad: 1}
datasets:
  digits: {copies: 1, size: 16}
poisons:
  lsp: {}
architectures:
  cnn: {width: 8}
MORE
methods:
METHODS
grid:
  main: {datasets: [digits], poisons: [lsp], architectures: [cnn], methods: all, seeds: [0]}
tables:
  accuracy: {}
figures: {}
"""


def cell_params(methods: dict[str, str], epochs: int, more: str = "") -> str:
    """A params.yaml of these methods, each with its settings as text, on one small poison; `more` sections if given."""
    listed = "\n".join(f"  {name}: {settings}" for name, settings in methods.items())
    return CELL_PARAMS.replace("EPOCHS", str(epochs)).replace("METHODS", listed).replace("MORE", more)
