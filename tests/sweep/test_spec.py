"""A sweep file crosses to the right runs, or is refused in a line that says where it is wrong."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from taghead.errors import DataError
from taghead.files import config_differences
from taghead.sweep import read_sweep
from taghead.sweep.spec import with_overrides

Write = Callable[..., str]


def test_levels_are_crossed_and_a_control_runs_once(write: Write) -> None:
    runs = read_sweep(write()).runs()
    assert [str(run) for run in runs] == [
        f"{levels} seed={seed}"
        for seed in (0, 1)
        for levels in (
            "relations=none",
            "operator=SAGEConv relations=both",
            "operator=GCNConv relations=both",
        )
    ]
    assert [run.is_control for run in runs] == [True, False, False] * 2
    assert len({run.id for run in runs}) == 6
    assert all(len(run.id) == 12 and set(run.id) <= set("0123456789abcdef") for run in runs)


def test_a_runs_config_is_the_base_with_its_levels(write: Write) -> None:
    sweep = read_sweep(write(set={"trainer.max_epochs": 7, "data.root": "elsewhere"}))
    control, _, run = sweep.runs()[:3]
    assert (run.config["seed_everything"], sweep.runs()[-1].config["seed_everything"]) == (0, 1)
    head = run.config["model"]["head"]["init_args"]
    assert head["conv"] == {
        "class_path": "torch_geometric.nn.GCNConv",
        "init_args": {"add_self_loops": False},
    }
    assert head["channels"] == 16
    assert control.config["model"]["head"]["init_args"]["mode"] == "none"
    assert control.config["model"]["head"]["init_args"]["conv"] == "torch_geometric.nn.SAGEConv"
    assert run.config["data"]["init_args"] == {"root": "elsewhere", "batch_size": 9}
    trainer = run.config["trainer"]
    assert (trainer["max_epochs"], trainer["check_val_every_n_epoch"]) == (7, 7)
    assert (trainer["logger"], trainer["callbacks"], trainer["deterministic"]) == (False, [], True)
    assert json.loads(json.dumps(run.config)) == run.config
    assert sweep.base["trainer"]["callbacks"]  # the base itself is as it was


def test_what_a_run_is_quiet_about_can_be_set(write: Write) -> None:
    run = read_sweep(write(set={"trainer.logger": True, "trainer.check_val_every_n_epoch": 1}))
    trainer = run.runs()[0].config["trainer"]
    assert (trainer["logger"], trainer["check_val_every_n_epoch"]) == (True, 1)


def test_an_id_is_that_of_the_config_alone(write: Write, folder: Path) -> None:
    sweep = read_sweep(write())
    ids = [run.id for run in sweep.runs()]
    renamed: dict[str, Any] = {
        "op": {label: one.overrides for label, one in sweep.factors["operator"].items()},
        "rel": {label: one.overrides for label, one in sweep.factors["relations"].items()},
    }
    renamed["rel"]["none"] = {"set": {"model.head.mode": "none"}, "without": ["op"]}
    (folder / "deeper").mkdir()
    again = read_sweep(write("deeper/other.yaml", name="x", base="../base.yaml", factors=renamed))
    assert [run.id for run in again.runs()] == ids
    changed = read_sweep(write(set={"model.learning_rate": 0.02}))
    assert not {run.id for run in changed.runs()} & set(ids)


def test_a_date_stays_text_so_that_json_can_hold_it(write: Write, folder: Path) -> None:
    (folder / write()).write_text(
        "base: base.yaml\nfactors: {day: {a: {data.root: 2026-01-31}, b: {data.root: x}}}"
    )
    run = read_sweep("sweep.yaml").runs()[0]
    assert run.config["data"]["init_args"]["root"] == "2026-01-31"
    assert len(run.id) == 12


def test_a_key_leaves_init_args_out() -> None:
    config = {"model": {"head": {"class_path": "H", "init_args": {"conv": "a.Conv"}}}}
    found = with_overrides(config, {"model.head.conv.heads": 4, "model.head.class_path": "G"})
    assert found == {
        "model": {
            "head": {
                "class_path": "G",
                "init_args": {"conv": {"class_path": "a.Conv", "init_args": {"heads": 4}}},
            }
        }
    }
    assert config["model"]["head"]["init_args"] == {"conv": "a.Conv"}
    assert with_overrides({}, {"trainer.max_epochs": 1}) == {"trainer": {"max_epochs": 1}}
    changed = [("model.head.class_path", "H", "G")]
    conv = ("model.head.conv", "a.Conv", {"class_path": "a.Conv", "init_args": {"heads": 4}})
    assert list(config_differences(config, found)) == [*changed, conv]


def level(content: Any) -> dict[str, Any]:
    return {"factors": {"f": {"a": content}, "g": {"b": {"data.root": "x"}}}}


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"factor": {}}, "factor: no such key; a sweep has base, factors, name, seeds, set"),
        ({"factors": {}}, r"factors must have at least one entry \(got \{\}\)"),
        ({"factors": {"f": {}}}, r"factors.f must have at least one entry \(got \{\}\)"),
        ({"factors": {"f": None}}, r"factors.f must have at least one entry \(got None\)"),
        ({"factors": {"seed": {"a": None}}}, "factors.seed: a factor's name must be .* no column"),
        ({"factors": {"f": {True: {}}}}, r"factors.f.True: a label must be text or a number"),
        (level(3), r"factors.f.a must be overrides by dotted key \(got 3\)"),
        (level({"mode": 1}), "factors.f.a.mode: must be a dotted key that begins with trainer."),
        (level({"model": {}}), "factors.f.a.model: must be a dotted key"),
        (level({"seed_everything": 1}), "factors.f.a.seed_everything: must be a dotted key"),
        (level({"set": {}, "data.root": "x"}), "factors.f.a.data.root: stands beside set"),
        (level({"set": {"root": "x"}}), "factors.f.a.set.root: must be a dotted key"),
        (level({"without": ["h"]}), r"factors.f.a.without must be a list of factors, of f, g \(g"),
        (level({"without": ["f"]}), "factors.f.a.without must not be its own factor"),
        ({"set": {"model.backbone.depth": 1}}, "set.model.backbone.depth: .*model.backbone has no"),
        ({"set": [1]}, r"set must be overrides by dotted key \(got \[1\]\)"),
        (
            {"set": {"model.learning_rate": float("nan")}},
            r"sweep.yaml: not a readable YAML file: a number must be finite \(got .nan\), line ",
        ),
        ({"seeds": []}, r"seeds must be a list of different numbers from 0 \(got \[\]\)"),
        ({"seeds": [1, 1]}, "seeds must be a list of different numbers"),
        ({"seeds": [-1]}, "seeds must be a list of different numbers"),
        ({"name": 3}, r"name must be letters.* a folder's name \(got 3\)"),
        ({"name": ""}, r"name must be letters.* \(got ''\)"),
        ({"name": "../../x"}, r"name must be letters.* \(got '../../x'\)"),
        ({"name": "/x"}, r"name must be letters.* \(got '/x'\)"),
        ({"name": ".."}, r"name must be letters.* \(got '..'\)"),
        ({"name": "a/b"}, r"name must be letters.* \(got 'a/b'\)"),
        ({"name": "a\\b"}, r"name must be letters"),
        ({"name": "a\n"}, r"name must be letters"),
        ({"base": 3}, r"base must be a config's file \(got 3\)"),
        ({"base": "nowhere.yaml"}, "nowhere.yaml: no such file"),
        (
            {"factors": {"f": {"a": {"data.root": "x"}, "b": {"data.root": "x"}}}},
            "factors: two runs are the same: f=a seed=0 and f=b seed=0",
        ),
        (
            {"factors": {"f": {"a": {"without": ["g"]}}, "g": {"b": {"without": ["f"]}}}},
            "factors.g.b.without must not have a factor that leaves out others itself",
        ),
    ],
)
def test_mistakes_are_told_in_a_line(write: Write, keys: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message) as told:
        read_sweep(write(**keys)).runs()
    assert "\n" not in str(told.value)
    assert str(told.value).split(":")[0] in ("sweep.yaml", "nowhere.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "sweep.yaml: not a readable YAML file: "),
        ("hello", r"sweep.yaml: must hold keys and values \(got str\)"),
        ("base: b.yaml", "sweep.yaml: factors is missing"),
        (
            "base: sweep.yaml\nfactors: {f: {0: , '0': }}",
            "factors.f.0: there are two levels of thi",
        ),
        ("base: sweep.yaml\nfactors: {f: {0: , 0x0: }}", "key 0 stands twice"),
        ("factors: {f: {a: }}", "sweep.yaml: base is missing"),
        (
            "base: b.yaml\nfactors:\n  f:\n    a: {}\n    a: {}",
            "sweep.yaml: not a readable YAML file: key 'a' stands twice, line 4",
        ),
    ],
)
def test_files_that_are_no_sweeps(folder: Path, text: str, message: str) -> None:
    (folder / "sweep.yaml").write_text(text)
    with pytest.raises(DataError, match=message) as told:
        read_sweep("sweep.yaml")
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("value", ["&a [*a]", "{1: a, b: c}", "!!binary aGVsbG8="])
def test_what_json_cannot_hold_is_refused(folder: Path, write: Write, value: str) -> None:
    """YAML has dates, bytes, and lists that hold themselves; a run's config goes into a store."""
    write()
    (folder / "odd.yaml").write_text(
        f"base: base.yaml\nfactors: {{f: {{a: {{model.x: {value}}}}}}}\n"
    )
    with pytest.raises(DataError, match=r"^odd.yaml: factors.f.a must hold text, numbers, lists"):
        read_sweep("odd.yaml")
    (folder / "odd.yaml").write_text("factors: " + "[" * 5000)
    with pytest.raises(DataError, match=r"^odd.yaml: not a readable YAML file: "):
        read_sweep("odd.yaml")
