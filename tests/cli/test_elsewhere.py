"""People who come from other libraries are told what their options are called here."""

from __future__ import annotations

import pytest

from jaxrm.cli.elsewhere import HERE, hints
from jaxrm.cli.help import options_of
from jaxrm.study import command

TRAINING = [option.path for option in options_of(command.Config)]


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ("--lr", "--lr is --learning-rate here"),
        ("--lora_r=8", "--lora_r is --lora.rank here"),
        ("--Bf16", "--Bf16 is --dtype bfloat16 here"),
        ("--model-name-or-path", "--model-name-or-path is --base here"),
        ("--num_train_epochs", "--num_train_epochs is --epochs here"),
        ("--warmup-ratio", "--warmup-ratio is --warmup here (a share of the steps)"),
    ],
)
def test_a_name_from_elsewhere_is_translated(given, line):
    assert list(hints(["list", given, "3"], TRAINING)) == [line]


def test_only_what_the_command_has_is_hinted():
    assert list(hints(["--lr", "1", "--output-dir", "x"], ["out", "model"])) == [
        "--output-dir is --out here"
    ]
    assert list(hints(["--model-name-or-path", "x"], ["model"])) == [
        "--model-name-or-path is --model here"
    ]
    assert list(hints(["--base", "x", "lr", "-lr", "--nothing"], TRAINING)) == []


def test_the_table_names_options_that_exist():
    fields = {*TRAINING, "model", "out", "log", "push"}
    assert {here.split()[0].replace("-", "_") for here in HERE} <= fields
