#!/usr/bin/env python3
"""Writes a batch of invoices that nobody has seen: gen.py DIR SEED [COUNT].

DIR gets batch/ (UBL, CSV and text files), ledger.csv, and expected.csv: the right rows, known here from the
numbers the files were made of, not by reading them back. unreadable.txt names the files that are no invoices.
"""
import csv, random, sys
from decimal import Decimal as D, ROUND_HALF_UP
from pathlib import Path
from xml.sax.saxutils import escape

CENT = D("0.01")
VENDORS = ["Nordlys Papir A/S", "Müller & Söhne GmbH", "Café \"Zum Löwen\", Inh. K. Weiß", "Smith, Jones & Co. Ltd",
           "Łódzkie Zakłady Metalowe Sp. z o.o.", "Ébénisterie d'Art Lefèvre", "東京計測株式会社", "O'Brien Logistics",
           "Hansen Marine Supply", "Ferretti Utensili S.r.l.", "Acme <Tools> & Parts", "Škoda Kancelářské Potřeby",
           "Baltic Freight OÜ", "Viña del Río S.A.", "Kranz Elektrotechnik"]
ITEMS = ["copy paper A4", "toner, black", "pallet transport", "M8 bolts (200)", "desk lamp \"Orbit\"", "consulting, hours",
         "kabel 3×1,5 mm²", "coffee beans 1 kg", "safety gloves", "annual maintenance"]
CURRENCIES = ["EUR", "EUR", "EUR", "USD", "GBP", "SEK", "CHF"]
RATES = ["0.19", "0.25", "0.07", "0", "0.2", "0.055"]
COLUMNS = ["invoice_id", "vendor", "po_number", "currency", "invoice_gross", "ledger_gross", "difference", "verdict"]


def cents(v):
    return v.quantize(CENT, rounding=ROUND_HALF_UP)


class Invoice:
    def __init__(self, rnd, n):
        self.id = rnd.choice(["INV-%05d", "RE%06d", "2026/%04d", "F-%d-A"]) % (1000 + 7 * n + rnd.randrange(7))
        self.vendor = rnd.choice(VENDORS)
        self.po = rnd.choice(["PO-%d", "PO%d", "4500%06d"]) % (10000 + n)
        self.currency = rnd.choice(CURRENCIES)
        self.credit = False
        self.rate = D(rnd.choice(RATES))
        self.lines = [(rnd.choice(ITEMS), D(rnd.randrange(1, 400)) / rnd.choice([1, 1, 2, 8]),
                       D(rnd.randrange(5, 250000)) / rnd.choice([100, 100, 1000])) for _ in range(rnd.randrange(1, 6))]

    def net(self):
        return sum((q * p for _, q, p in self.lines), D(0))

    def gross(self):
        g = cents(self.net() * (1 + self.rate))
        return -g if self.credit else g


def group(v, style):
    s = "%.2f" % abs(v)
    whole, frac = s.split(".")
    if style:
        whole = "{:,}".format(int(whole)).replace(",", style[0])
        s = whole + style[1] + frac
    return ("-" if v < 0 else "") + s


def ubl(inv, rnd):
    root = "CreditNote" if inv.credit else "Invoice"
    cbc, cac = rnd.choice([("cbc:", "cac:"), ("ns2:", "ns1:"), ("b:", "a:")])
    pre = rnd.choice(["", "", "ubl:"])
    esc = (lambda s: "<![CDATA[" + s + "]]>") if rnd.random() < 0.2 else (lambda s: escape(s, {'"': "&quot;"}))
    gross = abs(inv.gross())
    party = f"<{cac}PartyName><{cbc}Name>{esc('Trading name')}</{cbc}Name></{cac}PartyName>" \
            f"<{cac}PartyLegalEntity><{cbc}RegistrationName>{esc(inv.vendor)}</{cbc}RegistrationName></{cac}PartyLegalEntity>"
    if rnd.random() < 0.3:
        party = f"<{cac}PartyName><{cbc}Name>\n  {esc(inv.vendor)}\n</{cbc}Name></{cac}PartyName>"
    order = f"<{cac}OrderReference><{cbc}ID>{esc(inv.po)}</{cbc}ID></{cac}OrderReference>" if inv.po else ""
    lines = "".join(
        f"\n  <{cac}{root}Line><{cbc}ID>{i}</{cbc}ID><{cbc}LineExtensionAmount currencyID='{inv.currency}'>{cents(q * p)}"
        f"</{cbc}LineExtensionAmount><{cac}Item><{cbc}Name>{esc(what)}</{cbc}Name></{cac}Item></{cac}{root}Line>"
        for i, (what, q, p) in enumerate(inv.lines, 1))
    text = f"""<?xml version="1.0" encoding="%ENC%"?>
<!-- an invoice > with a comment, <and tags> in it -->
<{pre}{root} xmlns{':' + pre[:-1] if pre else ''}="urn:oasis:names:specification:ubl:schema:xsd:{root}-2"
  xmlns:{cbc[:-1]}="urn:oasis:names:specification:ubl:schema:xsd:CommonBasicComponents-2"
  xmlns:{cac[:-1]}="urn:oasis:names:specification:ubl:schema:xsd:CommonAggregateComponents-2">
  <{cbc}ID>{esc(inv.id)}</{cbc}ID>
  <{cbc}IssueDate>2026-10-05</{cbc}IssueDate>
  <{cbc}{root}TypeCode>{381 if inv.credit else 380}</{cbc}{root}TypeCode>
  <{cbc}DocumentCurrencyCode>{inv.currency}</{cbc}DocumentCurrencyCode>
  {order}
  <{cac}AccountingSupplierParty><{cac}Party><{cbc}EndpointID schemeID="0088">73</{cbc}EndpointID>{party}</{cac}Party></{cac}AccountingSupplierParty>
  <{cac}AccountingCustomerParty><{cac}Party><{cac}PartyLegalEntity><{cbc}RegistrationName>Our Company</{cbc}RegistrationName></{cac}PartyLegalEntity></{cac}Party></{cac}AccountingCustomerParty>
  <{cac}LegalMonetaryTotal><{cbc}TaxExclusiveAmount currencyID="{inv.currency}">{cents(inv.net())}</{cbc}TaxExclusiveAmount>
    <{cbc}TaxInclusiveAmount currencyID="{inv.currency}">{gross}</{cbc}TaxInclusiveAmount>
    <{cbc}PayableAmount currencyID="{inv.currency}">{gross}</{cbc}PayableAmount></{cac}LegalMonetaryTotal>{lines}
</{pre}{root}>
"""
    try:
        if rnd.random() < 0.15:
            return text.replace("%ENC%", "ISO-8859-1").encode("latin-1")
    except UnicodeEncodeError:
        pass
    data = text.replace("%ENC%", "UTF-8").encode()
    return (b"\xef\xbb\xbf" if rnd.random() < 0.2 else b"") + data


def table(inv, rnd):
    import io
    out = io.StringIO()
    w = csv.writer(out, lineterminator=rnd.choice(["\n", "\r\n"]))
    w.writerow(["invoice_id", "vendor", "po_number", "currency", "description", "quantity", "unit_price", "tax_rate"])
    for what, q, p in inv.lines:
        w.writerow([inv.id, inv.vendor, inv.po, inv.currency, what, -q if inv.credit else q, p, inv.rate])
    return (b"\xef\xbb\xbf" if rnd.random() < 0.2 else b"") + out.getvalue().encode()


def plain(inv, rnd):
    style = rnd.choice([None, (",", "."), (".", ",")])
    amount = lambda v: group(v, style)
    sign = -1 if inv.credit else 1
    rows = ["CREDIT NOTE" if inv.credit else "INVOICE", "", f"Invoice number: {inv.id}", f"Vendor:   {inv.vendor}",
            "Date: 2026-10-07", f"Purchase order: {inv.po}", f"Currency: {inv.currency}", ""]
    rows += [f"  {what}  {q} x {p}" for what, q, p in inv.lines]
    net = cents(inv.net()) * sign
    rows += ["", f"Net: {amount(net)}", f"Tax: {amount(inv.gross() - net)}", f"Total due: {amount(inv.gross())}",
             "Payment within 30 days: thank you"]
    return rnd.choice(["\n", "\r\n"]).join(rows).encode() + b"\n"


WRITERS = [("xml", ubl), ("csv", table), ("txt", plain)]


def make(folder, seed, count):
    rnd = random.Random(seed)
    batch = folder / "batch"
    batch.mkdir(parents=True, exist_ok=True)
    plan = ["matched", "matched", "matched", "cent", "amount_mismatch", "currency_mismatch", "vendor_mismatch",
            "missing_in_ledger", "no_order", "duplicate", "already_paid", "credit", "credit_off"]
    kinds = [plan[i] if i < len(plan) else rnd.choice(plan) for i in range(count)]
    rnd.shuffle(kinds)
    kinds = ["matched"] + kinds
    made, ledger, rows = [], [], []
    for n, kind in enumerate(kinds):
        inv = Invoice(rnd, n)
        inv.credit = kind.startswith("credit")
        twin = None
        if kind == "duplicate" and not made:
            kind = "matched"
        if kind == "duplicate":
            twin = inv = rnd.choice(made)
        if kind == "no_order":
            inv.po = ""
        ext, writer = rnd.choice(WRITERS)
        name = "%03d_%s.%s" % (n, rnd.choice(["invoice", "rechnung", "scan", "e-invoice", "facture août"]), ext)
        (batch / name).write_bytes(writer(inv, rnd))
        gross = inv.gross()
        if twin:
            rows.append((inv, twin.entry, "duplicate"))
            continue
        entry = {"vendor": inv.vendor, "currency": inv.currency, "gross": gross, "status": "open"}
        verdict = "matched"
        if kind == "cent":
            entry["gross"] = gross + rnd.choice([CENT, -CENT])
        elif kind in ("amount_mismatch", "credit_off"):
            entry["gross"] = gross + rnd.choice([2 * CENT, -2 * CENT, D("17.30"), -D(100)])
            verdict = "amount_mismatch"
        elif kind == "currency_mismatch":
            entry["currency"] = rnd.choice([c for c in CURRENCIES if c != inv.currency])
            verdict = kind
        elif kind == "vendor_mismatch":
            entry["vendor"] = rnd.choice([v for v in VENDORS if v != inv.vendor])
            verdict = kind
        elif kind == "already_paid":
            entry["status"] = "paid"
            verdict = kind
        elif kind in ("missing_in_ledger", "no_order"):
            entry, verdict = None, "missing_in_ledger"
        inv.entry = entry
        if entry:
            net = "" if rnd.random() < 0.3 else str(cents(inv.net()))
            ledger.append([inv.po, entry["vendor"], entry["currency"], net, "", entry["gross"], entry["status"]])
        made.append(inv)
        rows.append((inv, entry, verdict))
    junk = "%03d_damaged.xml" % len(kinds)
    (batch / junk).write_bytes(rnd.choice([b"<Invoice><cbc:ID>1</cbc:ID>", bytes(range(256)), b"", b"to be scanned again\n"]))
    (folder / "unreadable.txt").write_text(junk + "\n")
    for i in range(5):
        ledger.append(["PO-%d" % (90000 + i), rnd.choice(VENDORS), "EUR", "", "", D(i * 100), "open"])
    rnd.shuffle(ledger)
    with open(folder / "ledger.csv", "w", newline="", encoding="utf-8") as f:
        w = csv.writer(f)
        w.writerow(["po_number", "vendor", "currency", "net", "tax", "gross", "status"])
        w.writerows(ledger)
    with open(folder / "expected.csv", "w", newline="", encoding="utf-8") as f:
        w = csv.writer(f)
        w.writerow(COLUMNS)
        for inv, entry, verdict in rows:
            lg = entry["gross"] if entry else None
            w.writerow([inv.id, inv.vendor, inv.po, inv.currency, inv.gross(), "" if lg is None else lg,
                        "" if lg is None else inv.gross() - lg, verdict])


if __name__ == "__main__":
    make(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 30)
