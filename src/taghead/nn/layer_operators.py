"""The operators of a head's layers: one for all, one per layer, or one per relation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from taghead.class_paths import Spec
from taghead.graph.relations import Relation, find_relation
from taghead.operators.operator import GivenOperator, Operator, as_operator

AnyOperator = Operator | GivenOperator
DEFAULT = "default"  # stands for the relations that a mapping does not list


class LayerOperators:
    """Which operator each layer and relation has.

    Args:
        conv: An operator in any form; a list of one for each layer; or a mapping of one for each
            relation, in which `default` stands for those that it does not list. A list may hold
            mappings.
        relations: The head's relations.
        num_layers: The number of layers.
        mode: The head's mode; only `per_relation` has an operator for each relation.

    Raises:
        ValueError: If layers or relations are missing, or there is no such relation.
    """

    def __init__(
        self, conv: Any, relations: Sequence[Relation], num_layers: int, mode: str = "per_relation"
    ) -> None:
        conv = conv.value if isinstance(conv, Spec) else conv
        self.relations = tuple(relations)
        self.mode = mode
        self.is_list = isinstance(conv, list | tuple)
        given = list(conv) if self.is_list else [conv]
        if self.is_list and len(given) != num_layers:
            raise ValueError(
                f"conv must have an operator for each of graph_layers={num_layers} layers "
                f"(got a list of {len(given)})"
            )
        self.layers = [self._layer(each) for each in given]

    def _layer(self, conv: Any) -> AnyOperator | dict[str, AnyOperator]:
        if not isinstance(conv, Mapping) or "class_path" in conv:
            return as_operator(conv)
        if self.mode != "per_relation":
            raise ValueError(
                f"conv: operators by relation need mode per_relation (got mode {self.mode})"
            )
        names = [relation.name for relation in self.relations]
        found: dict[str, AnyOperator] = {}
        for key, each in conv.items():
            name = DEFAULT if key == DEFAULT else self._name(key, names)
            found[name] = as_operator(each)
        missing = [name for name in names if name not in found]
        if missing and DEFAULT not in found:
            raise ValueError(
                f"conv: relation {missing[0]} has no operator: give one for each of "
                f"{', '.join(names)}, or a {DEFAULT}"
            )
        return found

    def _name(self, key: object, names: Sequence[str]) -> str:
        """A relation's name, of its name, notation, or constructor alone (`past`, of `past_3f`)."""
        kinds = [name for name in names if name.partition("_")[0] == key]
        if len(kinds) == 1 and key not in names:
            return kinds[0]
        try:
            return find_relation(self.relations, key).name  # type: ignore[arg-type]
        except ValueError:
            raise ValueError(
                f"conv: {key!r} is no relation of the head, which has {', '.join(names)}; for an "
                f"option, give the operator's class too"
            ) from None

    @property
    def single(self) -> AnyOperator | None:
        """The operator that all layers and relations have, if it is one."""
        only = self.layers[0]
        return None if self.is_list or isinstance(only, dict) else only

    def of(self, layer: int) -> AnyOperator | dict[Relation, AnyOperator]:
        """The operator of a layer, or those of its relations.

        Args:
            layer: The layer's index, from 0.
        """
        found = self.layers[layer if self.is_list else 0]
        if not isinstance(found, dict):
            return found
        return {r: found.get(r.name) or found[DEFAULT] for r in self.relations}

    def __repr__(self) -> str:
        return repr(self.layers if self.is_list else self.layers[0])

    def to_config(self) -> Any:
        """The operators as a YAML file holds them.

        Raises:
            ValueError: If no file can hold one.
        """
        layers = [
            {name: each.to_config() for name, each in layer.items()}
            if isinstance(layer, dict)
            else layer.to_config()
            for layer in self.layers
        ]
        return layers if self.is_list else layers[0]
