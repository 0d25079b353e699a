"""Draws what a model computed: how sure each token was, what else was likely, where it looked, what each layer would
have said. One self-contained HTML file."""

from ponder.lens.look import Look, observe
from ponder.lens.page import Told, lens_json, whole_page

__all__ = ["Look", "Told", "lens_json", "observe", "whole_page"]
