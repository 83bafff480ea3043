"""sources KIND: list what every job of a kind runs, so that the engines watch one file in each job and not twenty."""

import hashlib

from relearn import grid, records, registry
from relearn.params import Params


def run(params: Params, kind: str) -> None:
    """Write the SHA-256 and name of each source file that a kind of job runs, as `sha256sum --check` reads them."""
    files = {
        registry.relative(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in registry.step_sources(kind)
    }
    records.write_text(
        grid.path("sources", "list", kind=kind), "".join(f"{digest}  {name}\n" for name, digest in files.items())
    )
