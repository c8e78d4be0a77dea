"""The page has all sections with their figures, whatever the order of records, and of any part."""

from __future__ import annotations

import dataclasses
import random
import re

from jaxrm.study import page
from jaxrm.study.sections import NO_RECORDS
from tests.study.toy_records import CHOICES, SEEDS, STEPS, A, B, C, curve, main_part, record


def written(tmp_path, records):
    path, figures = tmp_path / "docs" / "results.md", tmp_path / "docs" / "figures"
    page.write(records, CHOICES, path, figures)
    images = sorted(figures.iterdir()) if figures.exists() else []
    return path.read_text("utf-8"), {image.name: image.read_text("utf-8") for image in images}


def everything():
    """A few records of every part."""
    swept = [
        record("grm_sft", seed, 0.8 + alpha, part="strengths", strength=alpha)
        for seed in SEEDS[:2]
        for alpha in (0.01, 0.3)
    ]
    sizes = [
        record(method, seed, 0.7, dataclasses.replace(A, pairs=4000), "sizes")
        for seed in SEEDS[:2]
        for method in ("bt", "grm_sft")
    ]
    curves = [
        record(
            method,
            seed,
            condition=dataclasses.replace(A, epochs=epochs),
            part="curves",
            curve=curve((20 * epochs, 0.6), (40 * epochs, 0.7)),
        )
        for seed in SEEDS[:2]
        for epochs in (1, 4)
        for method in ("bt", "grm_sft")
    ]
    deep = [record("bt", 100, part="heads", head={"kind": "mlp", "layers": 1})]
    frozen = [record("frozen", 100, 0.6, part="frozen")]
    whole = [*main_part({"grm_sft": STEPS}), *main_part({}, B), *main_part({}, C)]
    return [*whole, *swept, *sizes, *curves, *deep, *frozen]


def test_the_page_has_every_section_and_the_same_bytes_in_any_order(tmp_path):
    records = everything()
    text, figures = written(tmp_path, records)
    assert re.findall(r"^## (\w+)", text, re.MULTILINE) == [
        *["Verdicts", "Condition", "Condition", "Condition", "Gains", "Language", "Training"],
        *["Learning", "Strength", "Depth", "Frozen", "Trials", "Runs"],
    ]
    assert NO_RECORDS not in text
    assert set(re.findall(r"\]\(figures/(.*?)\)", text)) == set(figures)
    assert sorted(figures) == [
        f"{name}.svg" for name in ("curves", "forest", "mechanism", "sizes", "strengths")
    ]
    random.Random(0).shuffle(records)
    assert written(tmp_path, records) == (text, figures)


def test_sections_without_records_say_so(tmp_path):
    text, figures = written(tmp_path, [record("bt", 100, part="main")])
    assert text.count(NO_RECORDS) == 8
    assert set(figures) == {"mechanism.svg"}
    text, figures = written(tmp_path / "empty", [])
    assert text.count(NO_RECORDS) == 10
    assert not figures
    assert "GRM's claim, at condition A against the best control: **open**" in text
