"""With RPCSHARE_COMPILE=1 in the environment, a wheel has the compiled core too, for its platform alone."""

import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

sys.path.insert(0, str(Path(__file__).parent))

from compiling import CompileError, compile_core, what_is_missing


class CompiledCore(BuildHookInterface[Any]):
    """Adds what mypyc makes."""

    def dependencies(self) -> list[str]:
        """Return what building takes beyond hatchling: mypyc, and the packages whose types it reads."""
        if not self._is_wanted():
            return []
        return ["mypy[mypyc]==2.4.1", *self.metadata.core.dependencies]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and have the results included; an editable install has them from ``make install``."""
        if not self._is_wanted() or version == "editable":
            return
        missing = what_is_missing()
        if missing is not None:
            sys.exit(f"RPCSHARE_COMPILE=1: {missing}")
        self._folder = tempfile.TemporaryDirectory()
        folder = Path(self._folder.name)
        log = Path(tempfile.mkdtemp(prefix="rpcshare-compile-"), "compile.log")  # kept if it fails
        try:
            results = compile_core(Path(self.root), folder, log)
        except CompileError as exc:
            sys.exit(f"RPCSHARE_COMPILE=1: the core cannot be compiled: {exc} (all that was said: {log})")
        shutil.rmtree(log.parent)
        for path in results:
            build_data["force_include"][str(folder / path)] = str(path)
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
