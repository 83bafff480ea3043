"""inputs SECTION/NAME: list the user's own files that an entry reads, so that both engines watch their content."""

from relearn import grid
from relearn.params import Params
from relearn.runtime import files


def run(params: Params, section: str, name: str) -> None:
    """Write the SHA-256 and name of each file, links followed; the name of an entry's setting comes first."""
    files.write_text(grid.path("inputs", "list", section=section, name=name), grid.listing(params, section, name))
