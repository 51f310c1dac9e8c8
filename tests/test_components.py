"""Components: what stands for one, what it builds, what a file may hold, and what is refused."""

import json
from functools import partial
from typing import Any

import pytest
import torch
import torch_geometric.nn as pyg
from torch import nn

from taghead.class_paths import Spec, allow_modules
from taghead.components import (
    Component,
    Copy,
    as_component,
    described,
    find_class,
    listed_classes,
    path_of,
    to_plain,
)

NAMES = {"linear": nn.Linear, "tall": Component(nn.Linear, {}, "tall", {"out_features": 9})}


class Block(nn.Module):
    """A module of a user's own, with a factory among its options."""

    def __init__(self, width: int, inner: Any = None, act: Any = None) -> None:
        super().__init__()
        self.inner = inner(width, width) if callable(inner) and not _is_module(inner) else inner
        self.act = act


def _is_module(value: Any) -> bool:
    return isinstance(value, nn.Module)


def built(value: Any, **given: Any) -> Any:
    return as_component(value, "part", NAMES).build(given)


@pytest.mark.parametrize(
    "value",
    [
        {"class_path": "linear", "init_args": {"in_features": 2, "out_features": 3}},
        {"class_path": "torch.nn.Linear", "init_args": {"in_features": 2, "out_features": 3}},
        {"class_path": "torch.nn.modules.linear.Linear", "init_args": {"out_features": 3}},
        partial(nn.Linear, out_features=3),
        partial(nn.Linear, 2, 3),
        nn.Linear,
        nn.Linear(2, 3),
        Spec({"class_path": "torch.nn.Linear"}),
        lambda in_features, out_features: nn.Linear(in_features, out_features),
    ],
)
def test_a_name_a_class_path_and_an_object_stand_for_a_component(value: Any) -> None:
    made = built(value, in_features=2, out_features=3)
    assert (type(made), made.in_features, made.out_features) == (nn.Linear, 2, 3)


def test_a_name_may_stand_for_options() -> None:
    found = as_component("tall", "part", NAMES)
    assert found.build({"in_features": 1}).out_features == 9
    assert found.to_config() == "tall"
    other = as_component({"class_path": "tall", "init_args": {"bias": False}}, "part", NAMES)
    assert other.to_config()["init_args"] == {"out_features": 9, "bias": False}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("lineer", "part must be one of linear, tall, a class path .*did you mean linear"),
        (3, r"part must be one of linear, tall, a class path, a class or an object \(got 3\)"),
        ({"class_path": "os.system"}, "part: os.system is not allowed: .* none from Python's os"),
        (
            {"class_path": "stranger.Conv"},
            "stranger.Conv is not allowed: .*--modules=stranger runs",
        ),
        ({"class_path": "torch.hub.load"}, "no class torch.hub.load among the modules of torch.nn"),
        ({"class_path": "torch.nn.functional.relu"}, "there is no class torch.nn.functional.relu"),
        ({"class_path": "torch.fx.GraphModule"}, "there is no class torch.fx.GraphModule"),
        ({"class_path": "torch.nn.os.system"}, "there is no class torch.nn.os.system"),
        ({"class_path": "torch_geometric.nn.models.SchNet"}, "no class .*models.SchNet among"),
        ({"class_path": "torch_geometric.nn.GPSE"}, "among the operators, aggregations, norms and"),
        ({"class_path": "taghead.training.ClassificationTask"}, "Task is not allowed"),
        ({"class_path": "linear", "init_args": []}, "init_args must be options by name"),
        ({"class_path": "linear", "init_args": {1: 2}}, "init_args must be options by name"),
        ({"class_path": "linear", "args": {}}, "a class has class_path and init_args .*'args'"),
        (
            {"class_path": "linear", "init_args": {"haeds": 1}},
            "Linear has no option 'haeds'; it has",
        ),
        ({"class_path": 3}, "must be a class path"),
    ],
)
def test_what_stands_for_none_is_refused(value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        as_component(value, "part", NAMES)


@pytest.mark.parametrize(
    "path",
    [
        "timeit.timeit",
        "torch.hub.load",
        "os.system",
        "torch.nn.functional.relu",
        "x.Y",
        "torch.Tensor",
    ],
)
def test_options_lead_to_listed_modules_alone(path: str) -> None:
    for option in ({"class_path": path}, [{"a": {"class_path": path}}]):
        with pytest.raises(ValueError, match=f"{path}.* not allowed|no class {path}"):
            Component(pyg.GINConv, {"nn": option})


def test_text_that_is_no_path_of_a_listed_package_stays_text() -> None:
    component = Component(pyg.ResGatedGraphConv, {"act": "os.system"})
    assert component.options == {"act": "os.system"}
    with pytest.raises(ValueError, match=r"there is no class torch\.hub\.load"):
        Component(pyg.ResGatedGraphConv, {"act": "torch.hub.load"})


@pytest.mark.parametrize(
    "options",
    [
        {"input_args": "x, edge_index: __import__('os').system('true')", "modules": []},
        {"input_args": "x, edge_index -> exit()", "modules": []},
        {"input_args": "x", "modules": [["torch.nn.ReLU", "x -> __import__('os')"]]},
        {"input_args": "x", "modules": [["torch.nn.ReLU", "x"]]},
        {"input_args": "x", "modules": {"a(): exit()": "torch.nn.ReLU"}},
        {"modules": ["torch.nn.ReLU"]},
    ],
)
def test_a_sequential_of_pyg_evaluates_nothing(options: dict) -> None:
    """PyG evaluates type annotations among the arguments, and writes names into a template."""
    with pytest.raises(ValueError, match=r"Sequential: (arguments must be names|modules must be)"):
        Component(pyg.Sequential, options)


def test_the_list_has_modules_alone_and_none_that_fetches() -> None:
    listed = listed_classes()
    assert all(issubclass(cls, nn.Module) for cls in listed.values())
    assert {"torch.nn.Linear", "torch_geometric.nn.GATv2Conv", "torch_geometric.nn.Set2Set"} <= set(
        listed
    )
    for name in ("GRetriever", "LLM", "SentenceTransformer", "GPSE", "SchNet", "DataParallel"):
        assert not any(path.endswith(f".{name}") for path in listed)
    assert find_class("torch_geometric.nn.conv.gatv2_conv.GATv2Conv") is pyg.GATv2Conv
    for path, cls in listed.items():
        assert find_class(path_of(cls)) is cls, path


def test_a_class_of_a_module_that_was_named() -> None:
    allow_modules([__name__])
    path = f"{__name__}.Block"
    assert find_class(path) is Block
    assert path_of(Block) == path
    spec = {
        "class_path": path,
        "init_args": {"width": 2, "inner": {"class_path": "torch.nn.Linear"}},
    }
    made = as_component(spec, "part", {}).build({})
    assert (made.inner.in_features, made.inner.out_features) == (2, 2)  # it got a factory


def test_what_a_named_module_imports_is_not_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    allow_modules([__name__])
    monkeypatch.setitem(globals(), "GPSE", pyg.GPSE)
    with pytest.raises(ValueError, match=r"GPSE is not allowed: .* is no class that model files"):
        find_class(f"{__name__}.GPSE")


def test_each_object_has_its_own_copy_of_a_module() -> None:
    given = nn.Linear(2, 2)
    for component in (
        Component(pyg.GINConv, {"nn": given}),
        Component(pyg.GINConv, {"nn": Copy(given)}),
    ):
        one, other = component.build({}), component.build({})
        assert len({id(given), id(one.nn), id(other.nn)}) == 3
        assert not torch.equal(one.nn.weight, other.nn.weight)  # reset
        assert not torch.equal(one.nn.weight, given.weight)
    one, other = (as_component(given, "part", {}).build({}) for _ in range(2))
    assert not torch.equal(one.weight, other.weight)


@pytest.mark.parametrize(
    "module",
    [
        nn.Tanh(),
        nn.LeakyReLU(0.3),
        nn.Linear(2, 3, bias=False),
        nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 2)),
        nn.Dropout(0.3),
        pyg.SoftmaxAggregation(learn=True, channels=4),
        pyg.SAGEConv(2, 3),
        pyg.GraphNorm(4),
    ],
)
def test_a_module_of_known_arguments_is_written_as_its_class(module: nn.Module) -> None:
    config = json.loads(json.dumps(Copy(module).to_config()))
    again = as_component(config, "part", {}).build({})
    assert repr(again) == repr(module)
    shapes = {name: value.shape for name, value in module.state_dict().items()}
    assert {name: value.shape for name, value in again.state_dict().items()} == shapes


class Hidden(nn.Module):
    """Its option is no attribute."""

    def __init__(self, width: int = 2) -> None:
        super().__init__()
        self.lin = nn.Linear(width, width)


def test_a_module_of_unknown_arguments_cannot_be_written() -> None:
    assert described(Hidden(3)) is None
    assert described(Hidden()) is not None
    hidden, state = Hidden(3), torch.random.get_rng_state()
    with pytest.raises(ValueError, match="a Hidden object cannot be written to a file; give its"):
        Copy(hidden).to_config()
    assert torch.equal(torch.random.get_rng_state(), state)  # no random number was drawn


@pytest.mark.parametrize("value", [torch.tanh, lambda x: x, object(), {1: 2}])
def test_values_that_no_file_can_hold(value: Any) -> None:
    with pytest.raises(ValueError, match=r"act: .* cannot be written to a file; give a class path"):
        to_plain(value, "act")


def test_tensors_are_lists_in_a_file() -> None:
    options = {"aggregators": ["mean"], "scalers": ["identity"], "deg": torch.tensor([0, 3, 1])}
    component = Component(pyg.PNAConv, options)
    config = json.loads(json.dumps(component.to_config()))
    assert config["init_args"]["deg"] == [0, 3, 1]
    again = as_component(config, "conv", {})
    assert torch.equal(again.options["deg"], options["deg"])
    assert again.build({"in_channels": 2, "out_channels": 2}) is not None


def test_widths_go_to_networks_that_lack_them() -> None:
    network = {
        "class_path": "torch_geometric.nn.MLP",
        "init_args": {"hidden_channels": 5, "num_layers": 2},
    }
    made = Component(pyg.GINConv, {"nn": network}).build({"in_channels": 2, "out_channels": 3})
    assert made.nn.channel_list == [2, 5, 3]
    fixed = {"class_path": "torch_geometric.nn.MLP", "init_args": {"channel_list": [2, 7, 3]}}
    made = Component(pyg.GINConv, {"nn": fixed}).build({"in_channels": 9, "out_channels": 9})
    assert made.nn.channel_list == [2, 7, 3]
