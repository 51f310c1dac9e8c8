"""Names of relations, and how they are read, written and refused."""

import copy
import importlib.util
import pickle
from typing import Any

import pytest
import torch

from taghead.graph import (
    INTRA_FRAME,
    NO_EDGES,
    PAST,
    TIME_ALIGNED,
    Grid,
    Relation,
    as_relation,
    as_relations,
    custom,
    future,
    motion_aligned,
    past,
    random_intra,
    random_time,
    shuffled_intra,
    shuffled_time,
    spatial_window,
    time_aligned,
)
from taghead.graph import edges as edges_module
from taghead.graph import relations as relations_module
from taghead.graph.edges import RelationKind, TimeEdges
from taghead.graph.relations import find_relation


def test_a_relation_is_the_edge_type_that_pyg_writes() -> None:
    plain = ("token", "intra_frame", "token")
    assert plain == INTRA_FRAME
    assert hash(plain) == hash(INTRA_FRAME)
    assert {plain: 1}[INTRA_FRAME] == 1
    assert as_relation(plain) is INTRA_FRAME
    assert as_relation("time_aligned") is TIME_ALIGNED
    assert INTRA_FRAME.name not in TIME_ALIGNED.name
    for twin in (pickle.loads(pickle.dumps(INTRA_FRAME)), copy.deepcopy(INTRA_FRAME)):
        assert twin == INTRA_FRAME
        assert torch.equal(twin.edges(Grid(2, 2, 2)), INTRA_FRAME.edges(Grid(2, 2, 2)))


def test_relations_of_one_name_and_two_rules_differ() -> None:
    assert Relation("intra_frame", TIME_ALIGNED.edges) != INTRA_FRAME


def test_an_unknown_relation_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"intra_frame, time_aligned.*\(got 'diagonal'\)"):
        Grid(2, 2, 2).edge_index("diagonal")


BASELINES = (shuffled_intra, shuffled_time, random_intra, random_time)


def every_relation() -> list[Relation]:
    reaches = [make(n) for make in (time_aligned, past, future) for n in (1, 2, 3, 12, 21)]
    baselines = [make(n) for make in BASELINES for n in (0, 1, 2, 10, 12)]
    windows = [make(n) for make in (spatial_window, motion_aligned) for n in (1, 2, 11, 12)]
    return [INTRA_FRAME, NO_EDGES, *reaches, *windows, *baselines]


def test_no_name_of_the_package_contains_another() -> None:
    relations = every_relation()
    assert as_relations(relations) == tuple(relations)
    names = [relation.name for relation in relations]
    assert not [(a, b) for a in names for b in names if a != b and a in b]


def test_relations_are_written_and_read() -> None:
    for relation in every_relation():
        for form in (relation.to_config(), tuple(relation), relation.name, relation):
            again = as_relation(form)
            assert again == relation
            assert again.to_config() == relation.name
        for twin in (pickle.loads(pickle.dumps(relation)), copy.deepcopy(relation)):
            assert (twin, twin.to_config()) == (relation, relation.name)


NAMES = {
    "time_2f": time_aligned(2),
    "past_1f": PAST,
    "past_12f": past(12),
    "future_3f": future(3),
    "window_1p": spatial_window(1),
    "motion_1p": motion_aligned(),
    "shuffled_0_intra": shuffled_intra(),
    "shuffled_10_time": shuffled_time(10),
    "random_0_intra": random_intra(0),
    "random_1_time": random_time(1),
}


@pytest.mark.parametrize("name", NAMES)
def test_names(name: str) -> None:
    assert NAMES[name].name == name
    assert as_relation(name) == NAMES[name]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("past", "past_1f"),
        (" past( reach = 2 ) ", "past_2f"),
        ("past(reach=1)", "past_1f"),
        ("future", "future_1f"),
        ("time_aligned(reach=1)", "time_aligned"),
        ("time_aligned(reach=2)", "time_2f"),
        ("spatial_window(radius=1)", "window_1p"),
        ("motion_aligned", "motion_1p"),
        ("motion_aligned(radius=2)", "motion_2p"),
        ("shuffled_intra", "shuffled_0_intra"),
        ("shuffled_time(seed=7)", "shuffled_7_time"),
        ("random_intra(seed=1)", "random_1_intra"),
        ("random_time", "random_0_time"),
    ],
)
def test_the_notation_of_the_constructors_is_read_as_the_name(text: str, name: str) -> None:
    assert as_relation(text).name == name
    assert as_relation(text) == as_relation(name)
    assert find_relation([INTRA_FRAME, as_relation(name)], text).name == name


def test_one_of_some_relations_is_found() -> None:
    own, relations = custom("ring", ring), (INTRA_FRAME, past(3), custom("ring", ring))
    for wanted in (own, "ring", ("token", "ring", "token")):
        assert find_relation(relations, wanted) == own
    for wanted in (past(2), "past_2f", "past(reach=2)", "past", ("token", "past_2f", "token"), 3):
        with pytest.raises(ValueError, match=r"must be one of intra_frame, past_3f, ring \(got "):
            find_relation(relations, wanted)
    with pytest.raises(ValueError, match=r"must be one of ring \(got .*ring"):
        find_relation([own], custom("ring", lambda grid: ring(grid)))


def test_a_rule_of_ones_own_cannot_be_written() -> None:
    message = "relations: '.*' has a rule of its own, which cannot be written to a file"
    own = custom("ring", lambda grid: ring(grid))
    for relation in (own, Relation("past_1f", ring), Relation("past", PAST.edges)):
        with pytest.raises(ValueError, match=message):
            relation.to_config()
    assert Relation("past_1f", PAST.edges).to_config() == "past_1f"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("pst_3f", "past_3f"),
        ("past_3", "past_3f"),
        ("past(2)", "past_2f"),
        ("past_03f", "past_3f"),
        ("timealigned", "time_aligned"),
        ("window", "window_1p"),
        ("windows(radius=4)", "window_4p"),
        ("random_2_tme", "random_2_time"),
        (("token", "past", "token"), "past_1f"),
    ],
)
def test_an_unknown_relation_leads_to_the_one_that_was_meant(text: Any, name: str) -> None:
    with pytest.raises(ValueError, match=f"did you mean {name}\\? ") as caught:
        as_relation(text)
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(f"(got {text!r})")


def test_a_relation_is_its_rule_and_a_row_of_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """One row gives a kind its names, its notation and its errors."""

    def diagonal(radius: int) -> Any:
        return TimeEdges(radius, 0)

    row = RelationKind("diagonal", "diagonal_{}p", diagonal, "radius", 1)
    monkeypatch.setattr(edges_module, "KINDS", (*edges_module.KINDS, row))
    spec = importlib.util.spec_from_file_location("with_one_more", relations_module.__file__)
    with_one_more = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(with_one_more)
    as_relation = with_one_more.as_relation
    assert as_relation("diagonal_2p").edges == TimeEdges(2, 0)
    assert as_relation("diagonal(radius=3)").to_config() == "diagonal_3p"
    with pytest.raises(ValueError, match=r"diagonal_Np, motion_Np, .*did you mean diagonal_2p\?"):
        as_relation("diagnal_2p")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "windows(radius=1)",
            r"must be one of intra_frame, .*window_Np, .*\(got 'w",
        ),
        ("past(radius=2)", r"past has no argument 'radius'; write past_2f or past\(reach=2\)"),
        ("spatial_window", r"needs its radius: window_1p or spatial_window\(radius=1\)"),
        ("past(reach=0)", r"past: reach must be a positive integer \(got 0\)"),
        ("past(reach=-1)", r"reach must be a positive integer \(got -1\)"),
        ("past_0f", r"past: reach must be a positive integer \(got 0\)"),
        ("past(2)", r"must be one of .*got 'past\(2\)'"),
        ("past(reach=1.5)", "must be one of"),
        ("past(reach=1, reach=2)", "must be one of"),
        ("intra_frame(reach=1)", "must be one of"),
        ("earlier_within_1_frames", "must be one of"),
        ("", "must be one of"),
        ("__import__('os')", "must be one of"),
        (("token", "past"), "must be one of"),
        (("clip", "past_1f", "clip"), "must be one of"),
        (3, "must be one of"),
    ],
)
def test_what_is_no_relation_is_named(text: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        as_relation(text)


@pytest.mark.parametrize("number", [0, -1, 1.5, True, "2"])
def test_reach_and_radius_are_positive_integers(number: Any) -> None:
    with pytest.raises(ValueError, match="reach must be a positive integer"):
        past(number)
    with pytest.raises(ValueError, match="radius must be a positive integer"):
        spatial_window(number)


def ring(grid: Grid) -> torch.Tensor:
    nodes = torch.arange(grid.num_nodes).flip(0)
    return torch.stack([nodes, (nodes + 1) % grid.num_nodes])


def test_custom_edges_are_sorted() -> None:
    relation = custom("ring", ring)
    assert Grid(1, 1, 4).edge_index(relation).tolist() == [[3, 0, 1, 2], [0, 1, 2, 3]]
    assert custom("ring", ring) == relation
    assert custom("ring", lambda grid: ring(grid)) != relation
    assert pickle.loads(pickle.dumps(relation)) == relation


@pytest.mark.parametrize("name", ["", "2d", "a b", "a.b", "a__b", "_a", "a_", "ok", "token"])
def test_names_serve_as_edge_types(name: str) -> None:
    with pytest.raises(ValueError, match=r"relation's name must be of letters.*\(got "):
        custom(name, ring)


def test_names_of_the_package_are_taken() -> None:
    for name in ("past", "past_3f", "time_1f", "spatial_window", "window_3p", "random_0_time"):
        with pytest.raises(ValueError, match=f"one of the package's own .*{name}"):
            custom(name, ring)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("flow", "flow_back"), "got 'flow' and 'flow_back'"),
        (("flow_back", "flow"), "got 'flow_back' and 'flow'"),
        (("ring", "ring"), "relations: 'ring' is listed twice"),
    ],
)
def test_names_must_not_contain_one_another(names: tuple[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        as_relations([INTRA_FRAME, *(custom(name, ring) for name in names)])
