"""What was measured, as Markdown and as values."""
import statistics


def percentile(values, share):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -int(-share * len(ordered) // 1) - 1))]


def summary(measurement, row):
    """One line as a value: what each peer's runs make, and its ratio to the first peer."""
    cells, values = {}, measurement.values[row.name]
    floor = measurement.peers[0]
    for peer in measurement.peers:
        own = values[peer]
        if peer in measurement.faults:
            cells[peer] = {"failed": measurement.faults[peer], "n": len(own)}
        elif own:
            cells[peer] = cell = {"n": len(own), "median": statistics.median(own), "values": own,
                                  "p95": percentile(own, 0.05 if row.rate else 0.95)}
            rounds = [mine / theirs for mine, theirs in zip(own, values[floor]) if theirs > 0]
            if peer != floor and rounds and floor not in measurement.faults:
                cell["ratio"] = statistics.median(rounds)
    return {"measurement": measurement.name, "name": row.name, "unit": row.unit,
            "better": "more" if row.rate else "less", "peers": cells}


def number(value):
    return f"{value:.0f}" if value >= 1000 else f"{value:.3g}" if value < 1 else f"{value:.1f}"


def written(cell):
    if cell is None:
        return "-"
    if "failed" in cell:
        return "FAILED"
    text = number(cell["median"])
    if cell["n"] > 1:
        text += f" ({number(cell['p95'])})"
    return text + (f" **{cell['ratio']:.2f}**" if "ratio" in cell else "")


def markdown(title, peers, lines):
    """Columns of one width each, so that the source can be read, too."""
    found = [[title, "unit", "n", *peers], None]
    for line in lines:
        cells = [line["peers"].get(peer) for peer in peers]
        runs = max((cell["n"] for cell in cells if cell), default=0)
        found.append([line["name"], line["unit"], str(runs), *map(written, cells)])
    widths = [max(len(row[n]) for row in found if row) for n in range(len(found[0]))]
    for row in found:
        cells = [cell.ljust(wide) for cell, wide in zip(row, widths)] if row else ["-" * wide for wide in widths]
        print(f"| {' | '.join(cells)} |")
    print()


def notes(lines):
    """A line for each failure; one fault is one line, however many rows it fills."""
    said = {}
    for line in lines:
        for peer, cell in line["peers"].items():
            if "failed" in cell:
                said.setdefault(f"{peer}: {cell['failed']}", f"FAILED, {line['name']}: ")
            elif line["name"] == "ssh host true" and peer == "stockade" and cell.get("ratio", 0) > 1:
                why = "look for delayed acknowledgements, Nagle and russh's rejection delay"
                said[f"{cell['ratio']:.2f} x OpenSSH's time for {line['name']}: {why}"] = "stall? "
    return [where + what for what, where in said.items()]
