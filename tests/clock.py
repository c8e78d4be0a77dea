"""Tests that last for days."""

from __future__ import annotations

from datetime import date
from types import ModuleType

import pytest


def set_today(monkeypatch: pytest.MonkeyPatch, day: date, *modules: ModuleType) -> None:
    """Makes `day` what `date.today()` says in modules that import `date` by name."""

    class On(date):
        @classmethod
        def today(cls) -> date:
            return day

    for module in modules:
        monkeypatch.setattr(module, "date", On)
