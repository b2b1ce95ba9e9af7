"""Holds the reference implementation of rendezvous hashing in Python to the test vectors."""

import json
import pathlib
import sys

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "docs/rendezvous"
sys.path.insert(0, str(FOLDER))

from rendezvous import order  # noqa: E402

cases = json.loads((FOLDER / "vectors.json").read_text())["cases"]
assert len(cases) > 20, len(cases)
for case in cases:
    assert order(case["relays"], case["code"]) == case["order"], case
