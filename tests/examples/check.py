#!/usr/bin/env python3
"""Compares a reconciliation with the right rows: check.py EXPECTED.csv UNREADABLE.txt OUTDIR. Silent when right."""
import csv, sys
from decimal import Decimal
from pathlib import Path

expected = list(csv.DictReader(open(sys.argv[1], encoding="utf-8", newline="")))
out = Path(sys.argv[3])
got = list(csv.DictReader(open(out / "reconciliation.csv", encoding="utf-8", newline="")))
bad = []
columns = "invoice_id,vendor,po_number,currency,invoice_gross,ledger_gross,difference,verdict,note".split(",")
if not got or list(got[0]) != columns:
    bad.append(f"columns are {list(got[0]) if got else None}")
if len(got) != len(expected):
    bad.append(f"{len(got)} rows, not {len(expected)}")
for i, (g, e) in enumerate(zip(got, expected)):
    for k in e:
        same = g.get(k) == e[k]
        if k in ("invoice_gross", "ledger_gross", "difference") and g.get(k) and e[k]:
            same = Decimal(g[k]) == Decimal(e[k])
        if not same:
            bad.append(f"row {i + 1} ({e['invoice_id']}): {k} is {g.get(k)!r}, not {e[k]!r}")
    if g.get("verdict") != "matched" and not g.get("note"):
        bad.append(f"row {i + 1}: no note says why it is {g.get('verdict')}")
summary = (out / "summary.md").read_text(encoding="utf-8")
for name in open(sys.argv[2], encoding="utf-8").read().split("\n"):
    if name and name not in summary:
        bad.append(f"summary.md does not name {name}")
print("\n".join(bad[:20]))
sys.exit(1 if bad else 0)
