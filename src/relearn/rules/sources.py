"""sources RULE: list the source files that every job of a rule runs, so that the engines watch one file, not twenty."""

import hashlib

from relearn import grid, registry
from relearn.params import Params
from relearn.runtime import files


def run(params: Params, rule: str) -> None:
    """Write the SHA-256 and name of each source file that a rule runs, as `sha256sum --check` reads them."""
    hashes = {
        registry.relative(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in registry.rule_sources(rule)
    }
    text = "".join(f"{digest}  {name}\n" for name, digest in hashes.items())
    files.write_text(grid.path("sources", "list", rule=rule), text)
