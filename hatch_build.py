"""Compiles the allocator (`native/`) into the package. Where that fails the package is whole without it, and slower."""

from __future__ import annotations

import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_MODULE = "autotune.simulate._heap"
_SOURCES = ["native/heap.c"]
_HEADERS = ["native/allocator.h", "native/blocks.h", "native/segments.h"]


class CompiledAllocator(BuildHookInterface):
    """One build for all versions of Python from 3.11 on (the stable ABI)."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compiles in place, which serves wheels and editable installs alike."""
        if self.target_name != "wheel":
            return
        try:
            built = _compile(Path(self.root))
        except Exception as error:  # no compiler, no headers, whatever distutils meets
            self.app.display_warning(f"the allocator in C was not built, memory is replayed in Python: {error}")
            return
        build_data["artifacts"].append(built.relative_to(self.root).as_posix())
        build_data["pure_python"] = False
        build_data["tag"] = f"cp311-abi3-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"


def _compile(root: Path) -> Path:
    from setuptools import Distribution, Extension
    from setuptools.command.build_ext import build_ext

    extension = Extension(
        _MODULE,
        sources=[str(root / source) for source in _SOURCES],
        depends=[str(root / header) for header in _HEADERS],
        py_limited_api=True,
    )
    command = build_ext(Distribution({"ext_modules": [extension]}))
    command.build_lib = str(root)
    command.build_temp = str(root / "build" / "native")
    command.ensure_finalized()
    command.run()
    return Path(command.get_ext_fullpath(_MODULE))
