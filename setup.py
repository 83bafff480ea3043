"""The one thing that pyproject.toml cannot say: workflow/presets travels in the package, as relearn/presets."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

PRESETS = Path("workflow/presets")


class BuildWithPresets(build_py):
    """Copy the presets beside the modules, but not for an editable installation, which finds them where they are."""

    def run(self) -> None:
        """Build the modules, then the presets."""
        super().run()
        if not self.editable_mode:
            for source, target in self._presets().items():
                self.mkpath(str(Path(target).parent))
                self.copy_file(source, target)

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        """All files that are built."""
        return [*super().get_outputs(include_bytecode), *([] if self.editable_mode else self._presets().values())]

    def _presets(self) -> dict[str, str]:
        folder = Path(self.build_lib, "relearn", "presets")
        return {str(path): str(folder / path.name) for path in sorted(PRESETS.glob("*.yaml"))}


setup(cmdclass={"build_py": BuildWithPresets})
