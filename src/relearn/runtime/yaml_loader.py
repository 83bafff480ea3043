"""A YAML reader that rejects duplicate keys and reads 5e-4 as a number."""

import re
from pathlib import Path

import yaml


class Loader(yaml.SafeLoader):
    """PyYAML's safe loader, but a duplicate key is an error, and 5e-4 is a number, as it is for DVC."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        """The mapping that a YAML node holds. Raises ConstructorError for a duplicate key."""
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        repeated = next((key for place, key in enumerate(keys) if key in keys[:place]), None)
        if repeated is not None:
            raise yaml.constructor.ConstructorError(None, None, f"duplicate key '{repeated}'", node.start_mark)
        return super().construct_mapping(node, deep)


Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def read_yaml(path: Path):
    """The content of a YAML file in UTF-8. Raises OSError, UnicodeDecodeError or yaml.YAMLError."""
    return yaml.load(Path(path).read_text(encoding="utf-8"), Loader=Loader)  # noqa: S506, a subclass of SafeLoader
