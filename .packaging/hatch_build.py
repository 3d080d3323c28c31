"""With RPCSHARE_COMPILE=1 in the environment, a wheel has the compiled core too, for its platform alone."""

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

sys.path.insert(0, str(Path(__file__).parent))

from compiling import LIBRARIES, compile_library


class CompiledCore(BuildHookInterface[Any]):
    """Adds what mypyc makes."""

    def dependencies(self) -> list[str]:
        """Return what building takes beyond hatchling."""
        return ["mypy[mypyc]==2.4.1"] if self._is_wanted() else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and have the results included; an editable install has them from ``make install``."""
        if not self._is_wanted() or version == "editable":
            return
        self._folder = tempfile.TemporaryDirectory()
        for library in LIBRARIES:
            folder = Path(self._folder.name, library.name)
            for made in compile_library(Path(self.root), library, folder):
                build_data["force_include"][str(made)] = str(library.package / made.name)
        build_data["pure_python"] = False
        build_data["infer_tag"] = True

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Clean up."""
        del version, build_data, artifact_path
        if self._is_wanted():
            self._folder.cleanup()

    @staticmethod
    def _is_wanted() -> bool:
        return os.environ.get("RPCSHARE_COMPILE") == "1"
