"""Logs of a resumed training: the rows before its checkpoint, once."""

import csv
from pathlib import Path

import pytest
from lightning.pytorch.loggers import CSVLogger

from taghead.training.resume import continue_table

TABLE = "epoch,step,train/loss,val/loss\n0,0,1.5,\n0,1,1.25,\n0,1,,1.0\n0,2,0.5,\n"


@pytest.mark.parametrize("torn", ["", "0", "0,", "0,3,0.2", "0,x,0.2,", "\0\0\0", "0,0,1,2,3"])
def test_rows_before_the_checkpoint_are_kept_and_a_torn_one_is_not(
    tmp_path: Path, torn: str
) -> None:
    logger = CSVLogger(str(tmp_path), name="", version="version_0")
    path = Path(logger.log_dir) / "metrics.csv"
    path.parent.mkdir()
    path.write_text(TABLE + torn)
    continue_table(logger, 2)
    with path.open(newline="") as file:
        rows = [(row["step"], row["train/loss"], row["val/loss"]) for row in csv.DictReader(file)]
    assert rows == [("0", "1.5", ""), ("1", "1.25", ""), ("1", "", "1.0")]


def test_a_table_without_rows_begins_anew(tmp_path: Path) -> None:
    logger = CSVLogger(str(tmp_path), name="", version="version_0")
    path = Path(logger.log_dir) / "metrics.csv"
    path.parent.mkdir()
    path.write_text("epo")
    continue_table(logger, 2)
