"""How a wheel gets the notebooks, the dashboards and the example configurations; all else is in pyproject.toml."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

# The folders of the checkout that the package brings along, and the files of each.
SHIPPED = {"notebooks": "*.ipynb", "dashboards": "*.ipynb", "configs": "*.yaml"}


class BuildWithShippedFiles(build_py):
    """Copies the folders into the package that is being built; the checkout, and an editable installation, use them in place."""

    def run(self) -> None:
        """Builds the package, then copies what is shipped with it."""
        super().run()
        if self.editable_mode:
            return
        for name, pattern in SHIPPED.items():
            target = Path(self.build_lib) / "workbench" / "shipped_files" / name
            shutil.rmtree(target, ignore_errors=True)  # of an earlier build
            target.mkdir(parents=True)
            for path in sorted(Path(__file__).parent.joinpath(name).glob(pattern)):
                shutil.copy(path, target)


setup(cmdclass={"build_py": BuildWithShippedFiles})
