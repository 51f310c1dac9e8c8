"""A saved model or a cache may come from anywhere: its backbone fetches and runs nothing."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from needed import needs

from taghead.backbones import build_backbone
from taghead.backbones.build import backbone_from_config

TINY = {"model_type": "videomae", "hidden_size": 8, "num_hidden_layers": 1, "image_size": 32}
TINY |= {"num_attention_heads": 1, "intermediate_size": 8, "num_frames": 2}


def config(**changes: Any) -> str:
    return "hf:" + json.dumps({**TINY, **changes})


REFUSED = {
    "hf:user/model": "must hold the architecture",
    "hf:user/model@main": "must hold the architecture",
    "hf:./folder": "must hold the architecture",
    "hf:/etc": "must hold the architecture",
    "hf:": "must hold the architecture",
    config(auto_map={"AutoModel": "user/code--modeling.Model"}): "has no 'auto_map'",
    config(_attn_implementation="user/kernel"): "has no '_attn_implementation'",
    config(attn_implementation="user/kernel"): "has no 'attn_implementation'",
    config(quantization_config={"quant_method": "gptq"}): "has no 'quantization_config'",
    config(_name_or_path="user/model"): "has no '_name_or_path'",
    config(trust_remote_code=True): "has no 'trust_remote_code'",
    config(architectures=["Evil"]): "has no 'architectures'",
    config(model_type="auto"): "model_type must be one of",
    config(hidden_act="os.system"): "not a network",
    "image:hf-hub:user/model": "must name a network of timm",
    "image:hf_hub:user/model": "must name a network of timm",
    "image:local-dir:folder": "must name a network of timm",
    "image:https://127.0.0.1:9/x": "must name a network of timm",
    "image:../../folder": "must name a network of timm",
    "image:resnet18.a1_in1k/x": "must name a network of timm",
    "image:resnet18.user": "no tag 'user'",
    "hf_hub:user/model": "backbone must be one of",
    "http://127.0.0.1:9/x": "backbone must be one of",
}
ACCEPTED = ["image:test_vit", "image:test_vit.r160_in1k", config()]

CHECK = """
import json, sys
from pathlib import Path
from taghead.backbones.build import backbone_from_config

import timm, transformers, torch._dynamo  # their own imports are not what is watched

EVENTS = ("socket.connect", "socket.getaddrinfo", "urllib.Request", "subprocess.Popen", "os.system")
seen, armed = [], False


def hook(event, args):
    if armed and event in EVENTS:
        seen.append(event)


sys.addaudithook(hook)
ends, armed = {}, True
for name in json.loads(sys.argv[1]):
    try:
        ends[name] = f"built {backbone_from_config(name)}"
    except ValueError as error:
        ends[name] = str(error)
armed = False
control = len(seen)
armed = True
try:
    import socket
    socket.create_connection(("127.0.0.1", 9), timeout=1)
except OSError:
    pass
print(json.dumps({"ends": ends, "seen": seen[:control], "control": seen[control:]}))
"""


@needs("timm")
@needs("transformers")
def test_nothing_is_fetched_or_run_because_of_a_file(tmp_path: Path) -> None:
    names = [*REFUSED, *ACCEPTED]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CHECK, json.dumps(names)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert not found["seen"]
    assert "socket.connect" in found["control"]
    for name, message in REFUSED.items():
        assert message in found["ends"][name], name
        assert len(found["ends"][name].splitlines()) == 1
    for name in ACCEPTED:
        assert found["ends"][name].startswith("built"), found["ends"][name]


@needs("transformers")
def test_a_folder_that_the_user_names_chooses_no_class(tmp_path: Path) -> None:
    evil = {**TINY, "auto_map": {"AutoModel": "modeling.Evil"}, "_attn_implementation": "a/kernel"}
    evil |= {"architectures": ["Evil"], "quantization_config": {"quant_method": "gptq"}}
    (tmp_path / "config.json").write_text(json.dumps(evil))
    (tmp_path / "modeling.py").write_text("open('PWNED', 'w').close()")
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "user/model"}')
    backbone = build_backbone(f"hf:{tmp_path}")
    assert set(json.loads(backbone.to_config().removeprefix("hf:"))) >= set(TINY)
    assert "kernel" not in backbone.to_config()
    assert "auto_map" not in backbone.to_config()
    assert type(backbone.features.network).__name__ == "VideoMAEModel"


@pytest.mark.parametrize("value", [None, 3, ["image:test_vit"], {"hf": "user/model"}])
def test_other_values(value: Any) -> None:
    with pytest.raises(ValueError, match="backbone must be a name or a class path"):
        backbone_from_config(value)


def test_the_command_line_starts_without_the_optional_packages() -> None:
    check = (
        "import atexit, sys\n"
        "atexit.register(lambda: print({'timm', 'transformers'} & set(sys.modules)))\n"
        "from taghead.cli import main\n"
        "main(['--help'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", check], capture_output=True, text=True, check=False
    )
    assert done.stdout.splitlines()[-1] == "set()", done.stderr
