"""The colors and labels that pictures and pages share."""

from __future__ import annotations

BLUE, GREEN, ORANGE, SAND = "#2f6db3", "#2c8a63", "#e5a04b", "#f2d3a6"
GREY, SLATE, INK = "#d3d8de", "#8793a3", "#3a424d"

ACTIVITIES = {"kernel": BLUE, "decode": ORANGE, "read": SAND, "waiting": GREY}
LABELS = {"kernel": "gradient", "decode": "decode", "read": "read", "waiting": "waiting"}
