"""What tests in a browser do alike."""

from __future__ import annotations

from typing import Any

READY = 30_000  # milliseconds for what takes a moment on an idle machine


def visit(page: Any, path: str = "/", ready: str = "board") -> None:
    """Open a place of the application, and wait until its data is there."""
    page.goto(f"/#{path}")
    page.locator(f"[data-ready={ready}]").wait_for()
