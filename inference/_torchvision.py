"""Lets `import torchvision` succeed beside a CPU build of torch.

torchvision ships no CPU build on PyPI, and its import fails with "operator torchvision::nms does not exist" where its
compiled library cannot load. Declaring the two schemas first cures that; nothing here imports torch by itself.
"""

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

_keep_alive: list[object] = []


class _SchemaFinder(importlib.abc.MetaPathFinder):
    """Declares torchvision's operator schemas the moment torchvision is first imported."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Return None always: the import itself is left to the ordinary finders."""
        if fullname == "torchvision":
            sys.meta_path.remove(self)
            _declare_schemas()
        return None


def _declare_schemas() -> None:
    import torch

    if torch.version.cuda is not None or torch.version.hip is not None:
        return
    library: Any = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    # The schemas live only as long as the library object does.
    _keep_alive.append(library)


def install() -> None:
    """Put the finder first in line, once; does nothing when torchvision is loaded already."""
    if "torchvision" in sys.modules or any(isinstance(finder, _SchemaFinder) for finder in sys.meta_path):
        return
    sys.meta_path.insert(0, _SchemaFinder())
