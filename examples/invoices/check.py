#!/usr/bin/env python3
"""Checks a reconciliation: check.py INVOICES LEDGER.csv OUT

Reads the invoices and the ledger itself, by the rules of instructions.md and with parsers of its own, works out
the right rows and compares OUT/reconciliation.csv and OUT/summary.md with them. Prints what differs; exit status 1
if something does. Needs Python 3.8 and nothing else.
"""
import csv, io, os, re, sys, xml.etree.ElementTree as ET
from decimal import Decimal as D, ROUND_HALF_UP, InvalidOperation, getcontext
from pathlib import Path

getcontext().prec = 60
CENT = D("0.01")
COLUMNS = "invoice_id,vendor,po_number,currency,invoice_gross,ledger_gross,difference,verdict,note".split(",")
THREE_DIGITS = "BHD IQD JOD KWD LYD OMR TND".split()
CREDIT = re.compile(r"(credit note|credit memo|gutschrift|avoir|kreditnota|creditnota|nota de credito)(.*)", re.I)


class Unreadable(Exception):
    pass


def cents(v):
    return v.quantize(CENT, rounding=ROUND_HALF_UP)


def clean(s):
    return " ".join((s or "").split())


def fold(s):
    return clean(s).lower()


# ---- numbers

def point_of(s):
    """The sign before the fraction, where the number shows it."""
    marks = re.findall("[.,]", s)
    if not marks:
        return None
    if len(set(marks)) == 2:
        return marks[-1]
    if len(marks) > 1:
        return "," if marks[0] == "." else "."
    return None if re.fullmatch(r"[1-9]\d{0,2}[.,]\d{3}", s) else marks[0]


def bare(s):
    return re.sub("[\\s'\u2019]", "", s).replace("\u2212", "-")


def number(text, point="."):
    s = bare(text)
    sign = 1
    if re.fullmatch(r"\(.*\)", s):
        s, sign = s[1:-1], -1
    if s[:1] in "+-" and s:
        s, sign = s[1:], (-1 if s[0] == "-" else 1)
    elif s.endswith("-"):
        s, sign = s[:-1], -1
    point = point_of(s) or point
    group = "," if point == "." else "."
    m = re.fullmatch(r"(\d*|\d{1,3}(?:%s\d{2,3})*%s\d{3})(?:%s(\d*))?" % (re.escape(group), re.escape(group), re.escape(point)), s)
    if not m or not re.search(r"\d", s):
        raise Unreadable(f"{text!r} is no number")
    return sign * D((m[1].replace(group, "") or "0") + "." + (m[2] or "0"))


# ---- formats

def local(tag):
    space, name = tag[1:].split("}") if tag[0] == "{" else ("", tag)
    return name if not space or "oasis:names:specification:ubl:" in space else tag


def at(node, *path):
    """Elements at a path of local names."""
    found = [node]
    for name in path:
        found = [c for n in found for c in n if local(c.tag) == name]
    return found


def text_at(node, *path):
    return next((clean(e.text) for e in at(node, *path) if clean(e.text)), "")


def ubl(data):
    if re.search(rb"<!DOCTYPE[^>]*\[", data):
        raise Unreadable("declares entities")
    try:
        root = ET.fromstring(data)
    except (ET.ParseError, LookupError, ValueError) as e:
        raise Unreadable(f"XML: {e}")
    kind = local(root.tag)
    if kind not in ("Invoice", "CreditNote"):
        raise Unreadable(f"<{kind}>")
    supplier = ("AccountingSupplierParty", "Party")
    total = at(root, "LegalMonetaryTotal", "TaxInclusiveAmount")
    currency = text_at(root, "DocumentCurrencyCode") or (total[0].get("currencyID", "") if total else "")
    gross = number(clean(total[0].text)) if total else None
    if kind == "CreditNote" or text_at(root, "InvoiceTypeCode") in ("81", "83", "381", "396", "532"):
        gross = gross if gross is None else -abs(gross)
    return [{"invoice_id": text_at(root, "ID"), "po_number": text_at(root, "OrderReference", "ID"), "currency": currency,
             "vendor": text_at(root, *supplier, "PartyLegalEntity", "RegistrationName") or text_at(root, *supplier, "PartyName", "Name"),
             "gross": gross}]


def records(text):
    text = text.lstrip("\ufeff \t\r\n")
    head = text.split("\n")[0]
    sep = "," if "," in head else ";" if ";" in head else "\t"
    rows = [r for r in csv.reader(io.StringIO(text, newline=""), delimiter=sep) if len(r) > 1 or (r and r[0].strip())]
    names = [n.strip().lower() for n in rows[0]] if rows else []
    return names, [dict(zip(names, r + [""] * len(names))) for r in rows[1:]]


def table(text):
    names, rows = records(text)
    if not rows or not {"invoice_id", "vendor", "po_number", "currency", "quantity", "unit_price", "tax_rate"} <= set(names):
        raise Unreadable("CSV without its columns, or without a line")
    figures = ("quantity", "unit_price", "tax_rate")
    point = next((p for r in rows for k in figures if (p := point_of(bare(r[k]).strip("%-+()")))), ".")
    out = {}
    for r in rows:
        n, p, rate = (number(r[k].replace("%", ""), point) for k in figures)
        if "%" in r["tax_rate"] or rate > 1:
            rate /= 100
        head = {k: clean(r[k]) for k in ("invoice_id", "vendor", "po_number", "currency")}
        inv = out.setdefault((head["invoice_id"], head["vendor"]), dict(head, gross=D(0)))
        if inv["currency"] != head["currency"]:
            raise Unreadable("two currencies in one invoice")
        inv["gross"] += n * p * (1 + rate)
    return list(out.values())


FIGURE = re.compile(r"(\d{1,3}(?:[ \u00a0\u2007\u2009\u202f]\d{3}(?!\d))+(?:[.,]\d+)?|\d[\d.,'\u2019]*)")


def figure(value):
    """The digits of an amount in a line, and its sign."""
    m = FIGURE.search(value)
    if not m:
        return None
    digits, before, after = bare(m[1]), value[:m.start()].replace("\u2212", "-"), value[m.end():]
    if digits[-1] in ".," and after.startswith("-"):
        digits, after = digits + "00", ""
    minus = re.match(r"\s*[-(]", before) or re.search(r"[-(]\s*$", before) or re.match(r"-|\s*CR\b", after)
    return digits.rstrip(".,"), -1 if minus else 1


def plain(text):
    found = {}
    for line in re.split(r"[\r\n]", text):
        m = re.match(r"[\s*|-]*([^:]*?)[\s.]*:\s*(.*?)\s*$", line)
        if m and m[2]:
            found.setdefault(clean(re.sub(r"\(.*?\)", "", m[1])).lower(), m[2])
    get = lambda *names: next((found[n] for n in names if n in found), "")
    cn = get("credit note number", "credit note no")
    total = get("total due", "amount due")
    inv = {"invoice_id": clean(cn or get("invoice number", "invoice no", "invoice nr", "invoice #", "invoice id")),
           "vendor": clean(get("vendor")), "po_number": clean(get("purchase order", "purchase order number", "po number")),
           "currency": clean(get("currency"))}
    if not inv["invoice_id"]:
        raise Unreadable("no invoice number")
    figures = {k: figure(v) for k, v in (("total", total), ("net", get("net")), ("tax", get("tax")))}
    shown = next((p for f in figures.values() if f and (p := point_of(f[0]))), None)
    thirds = inv["currency"].upper() in THREE_DIGITS
    value = {k: f[1] * number(f[0], shown or ((".", ",")[("," in f[0]) == thirds])) for k, f in figures.items() if f}
    if not inv["currency"]:
        code = re.search(r"\b[A-Z]{3}\b", total)
        inv["currency"] = code[0] if code else "EUR" if "€" in total else "GBP" if "£" in total else ""
    gross = value.get("total")
    if not total and "net" in value and "tax" in value:
        gross = value["net"] + value["tax"]
    lines = [clean(re.sub(r"[*=#_|-]+", " ", s)) for s in re.split(r"[\r\n]", get("document type", "invoice type", "document", "type") + "\n" + text)]
    credit = bool(cn)
    for i, s in enumerate(s for s in lines if s):
        m = CREDIT.match(s)
        credit = credit or bool(m and (i < 3 or re.fullmatch(r" ?n?[or]?\.? ?[\w/]*\d[\w/ ]*|", m[2], re.I)))
    inv["gross"] = -abs(gross) if credit and gross is not None else gross
    return [inv]


def decode(data):
    for mark, name in ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16")):
        if data.startswith(mark):
            return data.decode(name)
    if re.match(rb"[^\0]\0[^\0]\0", data):
        return data.decode("utf-16-le")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        declared = re.match(rb"\s*<\?xml[^>]*?encoding\s*=\s*[\"']([\w.-]+)", data)
        declared = declared[1].decode() if declared and not declared[1].upper().startswith(b"UTF") else "cp1252"
        text = data.decode(declared)
    if "\0" in text:
        raise Unreadable("not text")
    return text


def read(data):
    """The invoices of a file: dictionaries with gross as a Decimal of two digits."""
    try:
        text = decode(data)
    except (UnicodeDecodeError, LookupError) as e:
        raise Unreadable(str(e))
    start = text.lstrip("\ufeff \t\r\n")
    if re.match(r"<[A-Za-z?!_]", start):
        found = ubl(re.sub(r"^(<\?xml[^>]*?)\s+encoding\s*=\s*[\"'][^\"']*[\"']", r"\1", start).encode())
    elif re.match(r"[^\r\n]*invoice_id", start, re.I) and re.match(r"[^\r\n]*[,;\t]", start):
        found = table(start)
    else:
        found = plain(start)
    for inv in found:
        if not inv["invoice_id"] or inv["gross"] is None:
            raise Unreadable("no number or no total")
        inv["currency"] = inv["currency"].upper()
        inv["gross"] = cents(inv["gross"])
    return found


# ---- verdicts

def near(a, b):
    return abs(a - b) <= CENT


def judge(inv, lines, before):
    twin = any(b["invoice_id"] == inv["invoice_id"] and fold(b["vendor"]) == fold(inv["vendor"]) and
               fold(b["currency"]) == fold(inv["currency"]) and near(b["gross"], inv["gross"]) for b in before)
    line = max(lines, default=None, key=lambda l: (fold(l["vendor"]) == fold(inv["vendor"]), fold(l["currency"]) == fold(inv["currency"]),
                                                   near(number(l["gross"]), inv["gross"]), fold(l["status"]) != "paid"))
    gross = cents(number(line["gross"])) if line else None
    if twin:
        verdict = "duplicate"
    elif line is None:
        verdict = "missing_in_ledger"
    elif fold(line["vendor"]) != fold(inv["vendor"]):
        verdict = "vendor_mismatch"
    elif fold(line["currency"]) != fold(inv["currency"]):
        verdict = "currency_mismatch"
    elif fold(line["status"]) == "paid":
        verdict = "already_paid"
    else:
        verdict = "matched" if near(gross, inv["gross"]) else "amount_mismatch"
    return dict(inv, invoice_gross=inv["gross"], ledger_gross="" if gross is None else gross,
                difference="" if gross is None else inv["gross"] - gross, verdict=verdict)


def work_out(folder, ledger_path):
    """(right rows, names of the files that cannot be read)"""
    ledger_bytes = Path(ledger_path).read_bytes()
    ledger = {}
    for line in records(ledger_bytes.decode("utf-8-sig"))[1]:
        ledger.setdefault(line["po_number"].strip(), []).append(line)
    files = [p for p in Path(folder).rglob("*") if p.is_file() and not any(part.startswith(".") for part in p.relative_to(folder).parts)]
    rows, before, unreadable = [], [], []
    for path in sorted(files, key=lambda p: os.fsencode(p.relative_to(folder))):
        data = path.read_bytes()
        if data == ledger_bytes:
            continue
        try:
            found = read(data)
        except (Unreadable, InvalidOperation):
            unreadable.append(str(path.relative_to(folder)))
            continue
        for inv in found:
            rows.append(judge(inv, ledger.get(inv["po_number"], []) if inv["po_number"] else [], before))
            before.append(inv)
    return rows, unreadable


def differences(rows, unreadable, out):
    with open(out / "reconciliation.csv", encoding="utf-8", newline="") as f:
        reader = csv.DictReader(f)
        got = list(reader)
    if reader.fieldnames != COLUMNS:
        yield f"columns are {reader.fieldnames}"
    if len(got) != len(rows):
        yield f"{len(got)} rows, not {len(rows)}"
    for i, (g, e) in enumerate(zip(got, rows), 1):
        for k in COLUMNS[:-1]:
            if g.get(k) != str(e[k]):
                yield f"row {i} ({e['invoice_id']}): {k} is {g.get(k)!r}, not {str(e[k])!r}"
        if g.get("verdict") != "matched" and not g.get("note"):
            yield f"row {i} ({e['invoice_id']}): no note says why"
    summary = (out / "summary.md").read_text(encoding="utf-8")
    for name in unreadable:
        if name not in summary:
            yield f"summary.md does not name {name}"
    for verdict in {e["verdict"] for e in rows}:
        if not re.search(r"\b%s\b\D*\b%d\b" % (verdict, sum(e["verdict"] == verdict for e in rows)), summary):
            yield f"summary.md does not say how many invoices are {verdict}"


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    bad = list(differences(*work_out(sys.argv[1], sys.argv[2]), Path(sys.argv[3])))
    print("\n".join(bad) if bad else "right")
    sys.exit(1 if bad else 0)
