from tiny import make_model

from taghead.explain.selection import Selection


def test_a_relation_is_known_by_its_expression_too() -> None:
    head = make_model().head
    for relation in ("past(reach=3)", "earlier_within_3_frames"):
        assert Selection(relation=relation).checked(head).relation == "earlier_within_3_frames"
