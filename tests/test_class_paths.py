"""Class paths: what may be named, what is found in the working folder, and what is refused."""

import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import ClassVar

import fsspec
import pytest
from jsonargparse import ArgumentError, ArgumentParser
from torch import nn

from taghead.class_paths import (
    allow_modules,
    allowed_modules,
    check_plain_options,
    import_class,
    is_allowed,
    refuse_address,
    refused_path,
    restrict_parser,
)


def test_a_module_of_the_working_folder_is_found_only_if_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("named_a17", "other_a17"):
        (tmp_path / name).mkdir()
        text = "from torch import nn\nclass Mine(nn.Linear): pass\n"
        (tmp_path / name / "__init__.py").write_text("")
        (tmp_path / name / "parts.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"named_a17.parts.Mine is not allowed"):
        import_class("named_a17.parts.Mine", nn.Module)
    allow_modules(["named_a17"])
    assert "named_a17" in allowed_modules()
    assert issubclass(import_class("named_a17.parts.Mine", nn.Module), nn.Linear)
    with pytest.raises(ModuleNotFoundError):
        __import__("other_a17")
    assert not is_allowed("named_a17x.Mine")
    assert not is_allowed("other_a17.parts.Mine")
    assert is_allowed("other_a17.parts.Mine", ["other_a17"])
    assert "other_a17" not in sys.modules


def test_a_module_whose_import_fails_is_not_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "needs_a17.py").write_text("import no_such_a17\n")
    with pytest.raises(ModuleNotFoundError, match="no_such_a17"):  # the user's own mistake
        allow_modules(["needs_a17"])
    with pytest.raises(ValueError, match="there is no module missing_a17, neither installed nor"):
        allow_modules(["missing_a17"])
    assert not {"needs_a17", "missing_a17"} & set(allowed_modules())


@pytest.mark.parametrize("name", ["os", "subprocess", "os.path", "a b", "", "a..b", 3])
def test_what_no_module_of_ones_own_is_called(name: str) -> None:
    with pytest.raises(ValueError, match="modules must name modules of your own"):
        allow_modules([name])


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("torch.os.system", "there is no class torch.os.system"),
        ("torch.hub.load", "must be a subclass of Module"),
        ("torchy.nn.Linear", "torchy.nn.Linear is not allowed"),
        ("torch.utils.model_dump.__main__.main", "must be a class path"),  # it runs on import
        ("torch", "must be a class path"),
        ("torch.nn.Linear()", "must be a class path"),
        (None, "must be a class path"),
        (["torch.nn.Linear"], "must be a class path"),
    ],
)
def test_paths_that_lead_to_no_class(path: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        import_class(path, nn.Module)
    assert import_class("torch.nn.Linear", nn.Module) is nn.Linear


@pytest.mark.parametrize(
    "options",
    [
        [],
        {1: 2},
        {"a": {"class_path": "torch.nn.ReLU"}},
        {"a": [{"b": {"class_path": 1}}]},
    ],
)
def test_options_are_plain_values(options: object) -> None:
    with pytest.raises(ValueError, match=r"option a must be a plain value|must be options by name"):
        check_plain_options(options)
    assert check_plain_options({"heads": 4, "names": ["x"]}) == {"heads": 4, "names": ["x"]}


def test_a_module_of_an_allowed_package_that_cannot_be_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_a17.py").write_text("raise RuntimeError('no such device\\nat all')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=r"^there is no class broken_a17.X: no such device$"):
        import_class("broken_a17.X", nn.Module, ["broken_a17"])


def test_addresses() -> None:
    told = r"ckpt_path: .* is an address, and nothing is fetched"
    for address in ("http://a/b", "s3://x", "hf://u/n", "FILE:///x", "git+ssh://x"):
        with pytest.raises(ValueError, match=told):
            refuse_address("ckpt_path", address)
    for name in (None, "last", "a.ckpt", "C:\\a.ckpt", "http:a.ckpt", "runs//a.ckpt"):
        refuse_address("ckpt_path", name)


def test_a_parser_imports_only_what_is_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "stranger_a17.py").write_text("from torch import nn\nclass Mine(nn.ReLU): pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    restrict_parser()
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--part", type=nn.Module)
    assert parser.parse_args(["--part=torch.nn.ReLU"]).part.class_path == "torch.nn.ReLU"
    for path in ("stranger_a17.Mine", "timeit.Timer"):
        with pytest.raises(ArgumentError, match=f"{path}' is not allowed") as error:
            parser.parse_args([f"--part={path}"])
        assert (refused_path(str(error.value)) or "").startswith(f"{path} is not allowed")
    assert "stranger_a17" not in sys.modules


class Served(BaseHTTPRequestHandler):
    """A config at every address."""

    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"size: 3\n")

    do_HEAD = do_GET

    def log_message(self, *args: object) -> None:
        pass


def test_a_parser_reads_no_address() -> None:
    __import__("lightning.pytorch.cli")  # which has parsers read addresses
    restrict_parser()
    with fsspec.open("memory://config.yaml", "wb") as file:
        file.write(b"size: 3\n")
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--config", action="config")
    parser.add_argument("--size", type=int, default=1)
    with HTTPServer(("127.0.0.1", 0), Served) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for address in (f"http://127.0.0.1:{server.server_port}/a.yaml", "memory://config.yaml"):
            with pytest.raises(ArgumentError):
                parser.parse_args([f"--config={address}"])
        server.shutdown()
    assert Served.asked == []
