"""Fails if pyright knows too few public types: `pyright --verifytypes ... --outputjson | completeness.py 98`."""

from __future__ import annotations

import json
import sys

report = json.load(sys.stdin)["typeCompleteness"]
score = 100 * report["completenessScore"]
print(f"{score:.1f} % of the public names have a known type")
if score < float(sys.argv[1]):
    for symbol in report["symbols"]:
        if symbol["isExported"] and not symbol["isTypeKnown"]:
            problems = (problem["message"].partition("\n")[0] for problem in symbol["diagnostics"])
            print(symbol["name"], *problems, sep=": ")
    sys.exit(f"below {sys.argv[1]} %")
