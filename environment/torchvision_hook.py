"""Lets a CUDA build of torchvision be imported beside a CPU build of torch.

    python environment/torchvision_hook.py install

tries `import torchvision` with the interpreter that runs it. If that works, or torchvision is not
there, nothing is written. If torchvision's operators cannot load because torch has no CUDA, this
file is copied into site-packages with a `.pth` file that activates it whenever Python starts. Then
torchvision's Python code works (resizing, normalising); its compiled operators (nms) do not.
The hook costs nothing until something really imports torchvision, and does nothing with CUDA.
"""

import sys

_MODULE = "_torchvision_beside_cpu_torch"
_TRY_IMPORT = "import torchvision"
_MISSING_OPERATOR = "operator torchvision::"
_OPERATORS = ("nms", "qnms")  # those that torchvision describes to torch when it is imported
_libraries = []  # torch forgets operators whose library object has been collected


def _declare_operators(package_folders):
    """Give torch the signatures that torchvision expects, unless its own library loads."""
    import os

    import torch

    if torch.version.cuda is not None or torch.cuda.is_available():
        return
    try:
        for folder in package_folders:
            torch.ops.load_library(os.path.join(folder, "_C.so"))
    except OSError:
        library = torch.library.Library("torchvision", "FRAGMENT")
        for name in _OPERATORS:
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _libraries.append(library)


class _Loader:
    """torchvision's own loader, with the operators declared just before the package runs."""

    def __init__(self, loader):
        self._loader = loader

    def __getattr__(self, name):
        return getattr(self._loader, name)

    def create_module(self, spec):
        return self._loader.create_module(spec)

    def exec_module(self, module):
        module.__spec__.loader = module.__loader__ = self._loader
        _declare_operators(module.__spec__.submodule_search_locations or ())
        self._loader.exec_module(module)


class _Finder:
    """Finds torchvision where Python would, and wraps its loader."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name != "torchvision":
            return None
        from importlib.machinery import PathFinder

        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


def activate():
    """Put the finder first; called by the `.pth` file."""
    if "torchvision" not in sys.modules:
        sys.meta_path.insert(0, _Finder)


def _import_error():
    """What `import torchvision` says in a fresh interpreter; empty when it works."""
    import subprocess

    done = subprocess.run([sys.executable, "-c", _TRY_IMPORT], capture_output=True, text=True)
    return done.stderr.strip() if done.returncode else ""


def install():
    """Write the hook if this interpreter needs it; returns the exit status."""
    import pathlib
    import sysconfig

    folder = pathlib.Path(sysconfig.get_path("purelib"))
    module, pth = folder / f"{_MODULE}.py", folder / f"{_MODULE}.pth"
    for old in (pth, module):
        old.unlink(missing_ok=True)
    error = _import_error()
    if not error or error.endswith("No module named 'torchvision'"):
        print("torchvision loads, or is not installed: no hook needed")
        return 0
    if _MISSING_OPERATOR not in error:
        print(f"importing torchvision fails for a reason no hook mends:\n{error}", file=sys.stderr)
        return 1
    module.write_text(pathlib.Path(__file__).read_text(encoding="utf-8"), encoding="utf-8")
    pth.write_text(f"import {_MODULE}; {_MODULE}.activate()\n", encoding="utf-8")
    error = _import_error()
    if error:
        for written in (pth, module):
            written.unlink()
        print(f"torchvision does not load even with the hook:\n{error}", file=sys.stderr)
        return 1
    print(f"torchvision is a CUDA build beside a CPU build of torch: wrote {pth}")
    return 0


if __name__ == "__main__":
    if sys.argv[1:] != ["install"]:
        print("usage: python environment/torchvision_hook.py install", file=sys.stderr)
        sys.exit(2)
    sys.exit(install())
