from __future__ import annotations

import dataclasses

import pytest

from tests.models.support import CONFIG


def test_windows_are_one_per_layer():
    with pytest.raises(ValueError, match="3 windows for 2 layers"):
        dataclasses.replace(CONFIG, windows=(1, 2, 3))


def test_heads_go_evenly_over_key_value_heads():
    with pytest.raises(ValueError, match="num_attention_heads 4 is no multiple"):
        dataclasses.replace(CONFIG, num_kv_heads=3)
