"""What the sources say is what Python and jsonargparse find in the living objects."""

import sys
from pathlib import Path

import pytest
from jsonargparse import ArgumentParser
from lightning.pytorch.cli import LightningArgumentParser
from torch_geometric.nn import conv

from taghead.cli.live import load
from taghead.cli.options import UnknownOptionError, command_options
from taghead.cli.signature import signature
from taghead.cli.source import MissingNameError, find, forget
from taghead.cli.table import CLASS_FILES, COMMANDS
from taghead.data import VideoDataModule
from taghead.training.lightning_cli import TagheadCLI
from taghead.training.task import ClassificationTask


class Parsers(TagheadCLI):
    """The parsers of `fit`, `validate` and `test`; nothing is run."""

    def parse_arguments(self, parser: LightningArgumentParser, args: object) -> None:
        self.config = parser.get_defaults()

    def instantiate_classes(self) -> None:
        pass

    def _run_subcommand(self, subcommand: str) -> None:
        pass


@pytest.fixture(scope="module")
def parsers() -> dict[str, LightningArgumentParser]:
    cli = Parsers(ClassificationTask, VideoDataModule, subclass_mode_data=True, args=["fit"])
    return cli._subcommand_parsers


@pytest.mark.parametrize("name", ["fit", "validate", "test"])
def test_options_of_training_are_those_of_its_parser(
    parsers: dict[str, LightningArgumentParser], name: str
) -> None:
    live = {action.dest for action in parsers[name]._actions}
    live = {dest for dest in live if not dest.endswith(("help", "print_config", "print_shtab"))}
    live -= set(COMMANDS[name].hidden)
    options = command_options(COMMANDS[name])
    every = set(options.every_key())
    groups = ("trainer", "model", "data", "optimizer", "lr_scheduler")
    handled = {"print_config", "modules"}  # before the parser
    ours = {key for key in every if "." not in key and key not in groups} - handled
    inner = {key for key in every if key.count(".") == 1 and key.startswith(("trainer", "model"))}
    assert ours | inner == live - set(groups)
    assert set(groups) <= every


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - {"fit", "validate", "test"}))
def test_options_of_a_command_are_the_arguments_of_its_function(name: str) -> None:
    command = COMMANDS[name]
    parser = ArgumentParser()
    parser.add_function_arguments(load(command.function), as_group=False, skip={"data", "head"})
    live = {action.dest.partition(".")[0] for action in parser._actions} - {"help"}
    definition = find(command.function.replace(":", "."))
    assert set(signature(definition).arguments) - {"data", "head"} == live
    assert set(command.positional) <= live
    assert set(command.files) <= live | {"config"}


@pytest.mark.parametrize("name", conv.__all__)
def test_arguments_of_operators(name: str) -> None:
    parser = ArgumentParser()
    parser.add_class_arguments(getattr(conv, name), "its", fail_untyped=False)
    live = {a.dest.removeprefix("its.") for a in parser._actions} - {"help", "its"}
    live = {dest for dest in live if not dest.endswith(".help")}
    read = signature(find(f"torch_geometric.nn.{name}"))
    assert set(read.arguments) == live or (read.is_open and set(read.arguments) <= live)


def test_nearly_all_operators_are_known_whole() -> None:
    is_open = [n for n in conv.__all__ if signature(find(f"torch_geometric.nn.{n}")).is_open]
    assert len(is_open) <= 1


def test_files_of_classes_are_their_arguments() -> None:
    for path, files in CLASS_FILES.items():
        definition = find(path)
        assert definition is not None
        assert definition.path == path
        assert set(files) <= set(signature(definition).arguments)


def test_names_that_a_module_has_not() -> None:
    with pytest.raises(MissingNameError, match="nn has no GATv3Conv") as error:
        find("torch_geometric.nn.GATv3Conv")
    assert "GATv2Conv" in error.value.names
    with pytest.raises(MissingNameError, match="data has no SynthGim"):
        find("taghead.data.SynthGim")  # its names are made lazily


@pytest.mark.parametrize(
    "path", ["no_such_package.Conv", "taghead", "math.sqrt", "__main__.Conv", "torch._C.Size"]
)
def test_what_sources_do_not_tell(path: str) -> None:
    assert find(path) is None


def test_names_that_running_code_makes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "odd.py").write_text(
        "import sys\n"
        "def __getattr__(name): return object\n"
        "class Passes:\n"
        "    def __init__(self, width: int, **kwargs): self.inner = dict(**kwargs)\n"
        "class Given(Passes):\n"
        "    def __init__(self, depth: int, **kwargs): super().__init__(width=2, **kwargs)\n"
        "if sys.version_info > (3, 12): Version = int\n"
        "else: Version = str\n"
        "try:\n    import no_such_package as Optional\nexcept ImportError:\n    Optional = None\n"
    )
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    forget()
    assert find("odd.Unknown") is None
    assert signature(find("odd.Passes")).is_open
    given = signature(find("odd.Given"))
    assert given.is_open
    assert set(given.arguments) == {"depth"}
    assert find("odd.Version") is not None
    forget()


def test_keys_below_a_class() -> None:
    options = command_options(COMMANDS["fit"])
    assert options.find("model.head.mode") is not None  # of the default class
    assert options.find("model.head.init_args.mode") is not None
    assert options.find("model.head.conv.heads") is None  # of any operator
    options.choose("model.head.conv", "torch_geometric.nn.GATv2Conv")
    assert options.find("model.head.conv.heads") is not None
    with pytest.raises(UnknownOptionError) as error:
        options.find("model.head.conv.headz")
    assert error.value.within == "model.head.conv"
    options.choose("model.head.conv", "my_operators.Sum")  # it may be anything
    assert options.find("model.head.conv.headz") is None
    with pytest.raises(UnknownOptionError):
        options.find("model.class_names")  # the data give them
