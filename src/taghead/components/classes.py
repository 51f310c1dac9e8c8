"""The classes that a config, a checkpoint or a model folder may name."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any

from torch import nn

from taghead.class_paths import import_class

PYG = "torch_geometric"
OWN = ("taghead.nn", "taghead.operators", "taghead.graph")  # packages whose classes files may name
MODELS = (  # of torch_geometric.nn, beside its operators, aggregations and norms
    *("GCN", "GraphSAGE", "GIN", "GAT", "PNA", "EdgeCNN", "GraphUNet", "DeepGCNLayer"),
    *("GroupAddRev", "MLP", "JumpingKnowledge", "Linear", "Sequential"),
)


@functools.cache
def listed_classes() -> dict[str, type[nn.Module]]:
    """The classes of torch and PyG that a file may name, by public path.

    torch's modules; PyG's operators, aggregations, norms and the models that act on tokens. No
    other class of theirs: some download weights, or run code, when they are built.
    """
    from torch.nn import modules
    from torch_geometric import nn as pyg
    from torch_geometric.nn import aggr, conv, norm

    names = {
        "torch.nn": (nn, modules.__all__),
        "torch_geometric.nn": (pyg, (*conv.__all__, *aggr.__all__, *norm.__all__, *MODELS)),
    }
    found = {f"{m}.{n}": getattr(where, n) for m, (where, ns) in names.items() for n in ns}
    return {path: cls for path, cls in found.items() if issubclass(cls, nn.Module)}


def find_class(path: object, base: type[Any] = nn.Module) -> type[Any]:
    """The class of a path that a config, a checkpoint or a model folder holds.

    It is one of :func:`listed_classes`, of this package, or of a module that you named
    (:func:`~taghead.class_paths.allow_modules`); for any other path nothing is imported.

    Raises:
        ValueError: If it is none of them, or no subclass of `base`.
    """
    if not isinstance(path, str) or not any(path.startswith(f"{m}.") for m in ("torch", PYG)):
        found = import_class(path, base, OWN)
        if not _is_nameable(found):
            raise ValueError(f"{path} is not allowed: {refused(found)}")
        return found
    package = "torch.nn" if path.startswith("torch.") else f"{PYG}.nn"
    module, _, name = path.rpartition(".")
    listed = listed_classes().get(f"{package}.{name}")
    is_there = listed is not None and (
        module == package or f"{listed.__module__}.".startswith(f"{module}.")
    )
    if listed is None or not is_there:
        known = "modules" if package == "torch.nn" else "operators, aggregations, norms and models"
        raise ValueError(f"there is no class {path} among the {known} of {package}")
    if not issubclass(listed, base):
        raise ValueError(f"{path} must be a subclass of {base.__name__} (got {listed!r})")
    return listed


def _is_nameable(cls: type[Any]) -> bool:
    """Whether a file may name a class, which is known."""
    if cls.__module__.partition(".")[0] in ("torch", PYG):
        return cls in listed_classes().values()
    return "<locals>" not in cls.__qualname__


def refused(cls: type[Any]) -> str:
    """Why no file can name a class."""
    if "<locals>" in cls.__qualname__:
        return f"{cls.__name__} is made in a function; define it in a module"
    return f"{cls.__module__}.{cls.__name__} is no class that model files may name"


def path_of(cls: type[Any]) -> str:
    """A class's path, the public one where it has one.

    Raises:
        ValueError: If no file can name it.
    """
    if not _is_nameable(cls):
        raise ValueError(refused(cls))
    for package in ("torch.nn", f"{PYG}.nn"):
        if listed_classes().get(f"{package}.{cls.__name__}") is cls:
            return f"{package}.{cls.__name__}"
    return f"{cls.__module__}.{cls.__qualname__}"


def names_of(classes: Iterable[type[Any]]) -> dict[str, type[Any]]:
    """Classes by their own names."""
    return {cls.__name__: cls for cls in classes}
