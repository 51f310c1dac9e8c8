from taghead.files import config_differences


def test_differences_of_configs_are_named_as_on_the_command_line() -> None:
    one = {"model": {"class_path": "A", "init_args": {"relations": ["x", {"reach": 3}], "k": 1}}}
    other = {"model": {"class_path": "A", "init_args": {"relations": ["x", {"reach": 2}]}}, "b": 0}
    assert list(config_differences(one, other)) == [
        ("model.relations[1].reach", 3, 2),
        ("model.k", 1, None),
        ("b", None, 0),
    ]
    assert list(config_differences({"a": [1, 2]}, {"a": [3]})) == [
        ("length of a", 2, 1),
        ("a[0]", 1, 3),
    ]
    assert list(config_differences(one, one)) == []
