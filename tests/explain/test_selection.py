from tiny import make_model

from taghead.explain.selection import Selection


def test_a_relation_is_known_by_the_notation_of_its_constructor_too() -> None:
    head = make_model().head
    for relation in ("past(reach=3)", "past_3f"):
        assert Selection(relation=relation).checked(head).relation == "past_3f"
