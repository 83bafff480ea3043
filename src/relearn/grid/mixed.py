"""Which other poisons a poison mixes, and so reads the images of. Needs no torch."""

from relearn.params import Params


def mixed(params: Params, poison: str) -> list[str]:
    """The poisons of params.yaml whose images a poison reads; none for most."""
    return params.named("poisons", poison, "list[PoisonName]") or []


def with_mixed(params: Params, poison: str) -> list[str]:
    """A poison after all that it reads, directly or not, each once: an order in which they could be made."""
    before = [name for part in mixed(params, poison) for name in with_mixed(params, part)]
    return [*dict.fromkeys(before), poison]
