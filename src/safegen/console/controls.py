"""Which clauses of which framework each rule serves, and the last evidence of it."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from safegen.console.desk import DeskOf
from safegen.console.index import Contents
from safegen.console.layout import link, listing, moment, page
from safegen.pages.html import section, text
from safegen.policy import RULES

__all__ = ["api", "html"]

api = APIRouter(tags=["controls"])
html = APIRouter(include_in_schema=False)
