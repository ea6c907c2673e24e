"""Compile what every request runs through with Cython, and build the same package without where that does not work.

A ``.pyx`` file is for the compiler alone, and the package knows what to do without it. A ``.py`` file that has a
``.pxd`` beside it, which gives its attributes C types, is both: compiled here, and read as it stands where nothing is
compiled. The variable ``ASGI_ANALYTICS_COMPILE`` says what a failure means: by default a warning and a wheel for every
Python, with ``1`` the end of the build; ``0`` does not try.
"""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from contextlib import chdir
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

DIRECTIVES = {
    "language_level": "3",
    "annotation_typing": False,  # annotations are for people and mypy; types for the compiler stand in the .pxd files
    "nonecheck": True,  # an attribute of None raises, and does not crash
    "binding": True,
}

FLAGS = ["-O2", "-g0"] if os.name == "posix" else []
if sys.platform.startswith("linux"):
    FLAGS.append("-fno-plt")  # a call of Python's C API goes straight there: one cold line of code less for each


class CompileHook(BuildHookInterface[Any]):
    """Put compiled modules beside their sources into a wheel."""

    PLUGIN_NAME = "custom"
    folder: TemporaryDirectory[str] | None = None

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, unless it is for an editable installation or the environment says not to."""
        wanted = os.environ.get("ASGI_ANALYTICS_COMPILE", "")
        if wanted not in ("", "0", "1"):
            raise ValueError(f"ASGI_ANALYTICS_COMPILE is {wanted!r}: use 1 to insist on it, 0 to leave it out")
        if version == "editable" or wanted == "0":
            return  # a compiled file would hide the source that is being edited
        self.folder = TemporaryDirectory()
        try:
            outputs = compile_package(Path(self.root, "src"), Path(self.folder.name))
        except Exception as error:
            if wanted or not is_of_the_compilation(error):
                raise
            self.app.display_warning(
                "WARNING: asgi-analytics is built without its compiled modules: pure Python does the same, and slower. "
                "They take CPython with its headers, a C compiler and Cython; ASGI_ANALYTICS_COMPILE=1 makes this an "
                f"error.\nWARNING: {error}"
            )
            return
        build_data["force_include"] |= outputs
        build_data["pure_python"] = False
        build_data["infer_tag"] = True

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what is left of the compilation."""
        if self.folder is not None:
            self.folder.cleanup()


def is_of_the_compilation(error: Exception) -> bool:
    """Tell whether an error says that nothing can be compiled here, and not that this file is wrong."""
    if isinstance(error, ImportError):  # a build without isolation, and without what it needs
        return error.name in ("Cython", "setuptools")
    from Cython.Compiler.Errors import CompileError
    from setuptools.errors import CCompilerError, ExecError, PlatformError

    return isinstance(error, CompileError | CCompilerError | ExecError | PlatformError)


def compile_package(source: Path, folder: Path) -> dict[str, str]:
    """Compile in a folder, and return for each file that came out of it its place in the wheel."""
    from Cython.Build import cythonize
    from setuptools import Distribution, Extension
    from setuptools.errors import PlatformError

    if sys.implementation.name != "cpython" or sysconfig.get_config_var("Py_GIL_DISABLED"):
        raise PlatformError("the compiled modules rely on CPython and its global lock")
    shutil.copytree(source, folder, dirs_exist_ok=True)
    with chdir(folder):  # the names of files in tracebacks begin with the package
        paths = [path for path in Path().rglob("*.py*") if path.suffix == ".pyx" or is_typed(path)]
        extensions = [
            Extension(
                ".".join(path.with_suffix("").parts),
                [str(path)],
                extra_compile_args=FLAGS,
            )
            for path in sorted(paths)
        ]
        modules = cythonize(extensions, compiler_directives=DIRECTIVES, quiet=True)
        command: Any = Distribution({"ext_modules": modules}).get_command_obj("build_ext")
        command.build_lib, command.build_temp = "compiled", "objects"
        command.parallel = os.cpu_count()
        command.ensure_finalized()
        command.run()
        return {str(folder / output): str(Path(output).relative_to("compiled")) for output in command.get_outputs()}


def is_typed(path: Path) -> bool:
    """Tell whether a file is a module of Python with types for the compiler beside it."""
    return path.suffix == ".py" and path.with_suffix(".pxd").exists()
