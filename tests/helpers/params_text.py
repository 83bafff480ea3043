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
