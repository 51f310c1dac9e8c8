"""The table of backbones in `docs/backbones.md` says what the code does."""

import configparser
import re
from pathlib import Path

from taghead.backbones import BACKBONES
from taghead.backbones.transformers import ARCHITECTURES

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "backbones.md").read_text()
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.splitlines()
    if line.startswith("| `")
]


def test_it_has_every_backbone_with_its_width_and_stride() -> None:
    stated = {
        name: (cells[2], cells[3]) for cells in ROWS for name in re.findall(r"`(\w+)`", cells[0])
    }
    assert stated == {
        name: (str(spec.channels), ", ".join(map(str, spec.stride)))
        for name, spec in BACKBONES.items()
    }


def test_it_has_every_family_of_transformers() -> None:
    names = re.findall(r"`hf:<(.*?)>`", PAGE)
    plain = {name.lower().replace("-", "").replace(" ", "") for name in names}
    assert plain == {kind for kind in ARCHITECTURES if kind != "dinov2_with_registers"}


def test_its_extras_exist() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    extras = {cells[-1].strip("`[]") for cells in ROWS} - {""}
    assert extras == {"slowfast", "pretrained", "image", "hf"}
    assert extras <= set(config["options.extras_require"])


def test_fixed_clip_sizes_are_stated() -> None:
    for cells in ROWS:
        for name in re.findall(r"`(\w+)`", cells[0]):
            size = BACKBONES[name].clip_size
            assert (size is not None) == bool(re.fullmatch(r"\d+x\d+x\d+", cells[1]))
