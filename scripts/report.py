# SPDX-License-Identifier: Apache-2.0
"""What an experiment found, as text for a terminal and as one plain HTML page."""

import html
import math

from experiment import TITLES


def mean(values):
    values = list(values)
    return sum(values) / len(values)


def average(by_domain):
    return mean(by_domain.values())


def growth(result, model, by_domain):
    """How much the mean bits per byte over the domains grew against the full model, as a ratio less one."""
    return average(by_domain) / average(result["models"][model]["full"]) - 1


def percent(value):
    return f"{100 * value:+.1f} %"


def share(result, keep):
    return f"{100 * keep / result['routed']:g} %"


def align(rows):
    """Columns of text, the first to the left, the others to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in
                               enumerate(zip(row, widths))).rstrip() for row in rows)


def summary_rows(result):
    """Averages over the domains: one row a way to restrict the experts, bits per byte and growth for each model."""
    rows = [["mean over the domains"]]
    for model in result["models"]:
        rows[0] += [TITLES[model], "growth"]
    line = ["full model"]
    for entry in result["models"].values():
        line += [f"{average(entry['full']):.4f}", ""]
    rows.append(line)
    for method in result["methods"]:
        for keep in result["keeps"]:
            line = [f"{share(result, keep)} of the routed experts, {method}"]
            for model, entry in result["models"].items():
                values = entry["subsets"][method][str(keep)]
                line += [f"{average(values):.4f}", percent(growth(result, model, values))]
            rows.append(line)
    for pool in next(iter(result["models"].values()))["pools"]:
        line = [f"all experts, pool of {pool} from the document"]
        for model, entry in result["models"].items():
            line += [f"{average(entry['pools'][pool]):.4f}", percent(growth(result, model, entry["pools"][pool]))]
        rows.append(line)
    return rows


def domain_rows(result, method):
    """One row a domain: bits per byte of the full model, and each subset's with its growth, for each model."""
    rows = [["domain"]]
    for model in result["models"]:
        rows[0] += [f"{TITLES[model]}, full"]
        for keep in result["keeps"]:
            rows[0] += [share(result, keep), "growth"]
    for domain in result["domains"]:
        line = [domain]
        for entry in result["models"].values():
            full = entry["full"][domain]
            line.append(f"{full:.3f}")
            for keep in result["keeps"]:
                value = entry["subsets"][method][str(keep)][domain]
                line += [f"{value:.3f}", percent(value / full - 1)]
        rows.append(line)
    line = ["average"]
    for model, entry in result["models"].items():
        line.append(f"{average(entry['full']):.3f}")
        for keep in result["keeps"]:
            values = entry["subsets"][method][str(keep)]
            line += [f"{average(values):.3f}", percent(growth(result, model, values))]
    rows.append(line)
    return rows


def verdict(result, method, keep):
    """Two sentences computed from the numbers, and whether EMO's growth is below a third of the standard model's."""
    grown = {m: growth(result, m, e["subsets"][method][str(keep)]) for m, e in result["models"].items()}
    chance = {m: growth(result, m, e["subsets"]["random"][str(keep)]) for m, e in result["models"].items()}
    full = {m: average(e["full"]) for m, e in result["models"].items()}
    holds = grown["emo"] < grown["standard"] / 3
    first = (f"With the {keep} of {result['routed']} routed experts ({share(result, keep)}) picked from one document, "
             f"EMO's bits per byte changed by {percent(grown['emo'])} on average over {len(result['domains'])} domains "
             f"and the standard MoE's by {percent(grown['standard'])}: "
             + ("the EMO holds up where the standard model breaks." if holds and grown["standard"] > 0.02 else
                "too little training to see a difference." if abs(grown["standard"]) <= 0.02 else
                "that is not the threefold difference this run was to show."))
    second = (f"The same number of experts drawn at random costs {percent(chance['emo'])} and "
              f"{percent(chance['standard'])}, and with all its experts the EMO stands at {full['emo']:.3f} bits per byte, "
              f"the standard MoE at {full['standard']:.3f} ({percent(full['emo'] / full['standard'] - 1)}).")
    return first, second, holds


# -- fine-tuning

def stage_value(result, model, keep, stage, what):
    """Mean over the tuned domains and draws."""
    return mean(case[stage][what] for case in result["models"][model]["cases"] if case["keep"] == keep)


def finetune_growth(result, model, keep, stage):
    """How much the bits per byte of the items grew against the same model with all its experts at the same stage."""
    whole = stage_value(result, model, result["routed"], stage, "bits_per_byte")
    return stage_value(result, model, keep, stage, "bits_per_byte") / whole - 1


def finetune_rows(result, what):
    """One row a subset; before and after for each model. what: bits_per_byte, or accuracy with its points."""
    rows = [["routed experts"]]
    for model in result["models"]:
        for stage in ("before", "after"):
            rows[0] += [f"{TITLES[model]}, {stage}", "growth" if what == "bits_per_byte" else "points"]
    for keep in result["keeps"]:
        line = [share(result, keep)]
        for model in result["models"]:
            for stage in ("before", "after"):
                value = stage_value(result, model, keep, stage, what)
                whole = stage_value(result, model, result["routed"], stage, what)
                if what == "accuracy":
                    line += [f"{100 * value:.1f} %", f"{100 * (value - whole):+.1f}"]
                else:
                    line += [f"{value:.4f}", percent(value / whole - 1)]
                if keep == result["routed"]:
                    line[-1] = ""
        rows.append(line)
    return rows


def merged_rows(result):
    """One row a model and a number of tuned experts: what putting them back does to the parent, whose experts are all
    in use: on documents of the domain they were tuned for, on those of the other domains, on the domain's items."""
    rows = [["experts tuned", "documents of the domain", "of the other domains", "items of the domain", "accuracy"]]
    for model, entry in result["models"].items():
        parent = entry["documents"]
        for keep in result["keeps"]:
            cases = [case for case in entry["cases"] if case["keep"] == keep]
            own = mean(case["merged"]["documents"][case["domain"]] / parent[case["domain"]] - 1 for case in cases)
            others = [case["merged"]["documents"][d] / parent[d] - 1 for case in cases for d in parent
                      if d != case["domain"]]
            line = [f"{TITLES[model]}, {share(result, keep)}", percent(own), percent(mean(others)) if others else ""]
            whole = stage_value(result, model, result["routed"], "before", "bits_per_byte")
            right = stage_value(result, model, result["routed"], "before", "accuracy")
            line.append(percent(stage_value(result, model, keep, "merged", "bits_per_byte") / whole - 1))
            line.append(f"{100 * (stage_value(result, model, keep, 'merged', 'accuracy') - right):+.1f} points")
            rows.append(line)
    return rows


def finetune_verdict(result, keep):
    """Two sentences, and whether EMO's growth is below a third of the standard model's before and after fine-tuning."""
    sentences, holds = [], True
    for stage in ("before", "after"):
        grown = {model: finetune_growth(result, model, keep, stage) for model in result["models"]}
        stands = grown["emo"] < grown["standard"] / 3
        holds = holds and stands
        sentences.append(f"{stage.capitalize()} fine-tuning, {keep} of {result['routed']} routed experts "
                         f"({share(result, keep)}) change the bits per byte by {percent(grown['emo'])} in the EMO and by "
                         f"{percent(grown['standard'])} in the standard MoE: the EMO's growth is "
                         f"{'below' if stands else 'not below'} a third of the standard model's.")
    return (*sentences, holds)


# -- memory

def baseline_title(result, row):
    return TITLES[row["model"]] + (f", {share(result, row['subset'])}" if row["subset"] else "")


def baseline_rows(result):
    """All models and subsets, the smallest first."""
    rows = [["", "experts", "parameters", "active", "MB", "bits/byte", "against the full EMO"]]
    full = next(row for row in result["rows"] if row["model"] == "emo" and row["subset"] is None)
    for row in sorted(result["rows"], key=lambda row: row["parameters"]):
        rows.append([baseline_title(result, row), str(row["experts"] or "-"), f"{row['parameters'] / 1e6:.3f} M",
                     f"{row['active'] / 1e6:.3f} M", f"{row['bytes'] / 1e6:.2f}", f"{row['bits_per_byte']:.4f}",
                     percent(row["bits_per_byte"] / full["bits_per_byte"] - 1)])
    return rows


def baseline_verdict(result, keep):
    """A sentence, and whether the EMO's subset of `keep` routed experts is better than both baselines."""
    def find(model, subset):
        return next(row for row in result["rows"] if row["model"] == model and row["subset"] == subset)
    subset = find("emo", keep)
    ratio = {model: subset["bits_per_byte"] / find(model, None)["bits_per_byte"] - 1 for model in ("small", "dense")}
    return (f"The EMO's {share(result, keep)} subsets hold {subset['bytes'] / 1e6:.2f} MB and stand at "
            f"{subset['bits_per_byte']:.4f} bits per byte: {percent(ratio['small'])} against the small MoE of "
            f"{find('small', None)['bytes'] / 1e6:.2f} MB, {percent(ratio['dense'])} against the dense model of "
            f"{find('dense', None)['bytes'] / 1e6:.2f} MB.", all(value < 0 for value in ratio.values()))


# -- the page

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1b1b1b;
  background: #fff; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; }
th, td { padding: .25rem .6rem; text-align: right; border-bottom: 1px solid #ddd; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
tr.total td { font-weight: 600; border-top: 2px solid #888; }
blockquote { margin: 0; padding: .5rem 1rem; border-left: 3px solid #888; white-space: pre-wrap; }
.prompt { color: #666; } .note { color: #555; font-size: .9rem; }
"""
COLOURS = {"emo": "#0b63a5", "standard": "#b4510a"}


def html_table(rows, total=False):
    out = ["<div class=wide><table>", "<tr>" + "".join(f"<th>{html.escape(c)}</th>" for c in rows[0]) + "</tr>"]
    for i, row in enumerate(rows[1:], 2):
        mark = " class=total" if total and i == len(rows) else ""
        out.append(f"<tr{mark}>" + "".join(f"<td>{html.escape(c)}</td>" for c in row) + "</tr>")
    return "\n".join(out + ["</table></div>"])


def smooth(metrics, points=160):
    """(tokens, mean loss) of runs of steps, about `points` of them; the first steps, far above, are left out."""
    metrics = metrics[len(metrics) // 50:]
    width = max(1, len(metrics) // points)
    groups = [metrics[i:i + width] for i in range(0, len(metrics), width)]
    return [(group[-1]["tokens"], mean(row["loss"] for row in group)) for group in groups]


def round_ticks(low, high, outside=True):
    """Round numbers around (or inside) [low, high], four to eight of them."""
    span = (high - low) or 1.0
    unit = 10.0 ** math.floor(math.log10(span))
    step = next(unit * f for f in (0.1, 0.2, 0.5, 1, 2, 5) if span / (unit * f) <= 6)
    first, last = low / step, high / step
    first, last = (math.floor(first), math.ceil(last)) if outside else (math.ceil(first), math.floor(last))
    return [round(i * step, 10) for i in range(first, last + 1)]


def curves(metrics):
    """An SVG of training loss over tokens, one line a model."""
    lines = {model: smooth(rows) for model, rows in metrics.items() if len(rows) > 1}
    if not lines:
        return ""
    width, height, left, right, top, bottom = 760, 320, 56, 130, 16, 40
    most = max(x for line in lines.values() for x, _ in line)
    values = [y for line in lines.values() for _, y in line]
    ticks, token_ticks = round_ticks(min(values), max(values)), round_ticks(0, most, outside=False)
    low, high = ticks[0], ticks[-1]

    def at(x, y):
        return (left + (width - left - right) * x / most, top + (height - top - bottom) * (high - y) / (high - low))

    out = [f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="Training loss over tokens" '
           'style="width:100%;max-width:760px;font:12px system-ui,sans-serif">']
    for value in ticks:
        y = at(0, value)[1]
        out.append(f'<line x1="{left}" y1="{y:.1f}" x2="{width - right}" y2="{y:.1f}" stroke="#ddd"/>'
                   f'<text x="{left - 8}" y="{y + 4:.1f}" text-anchor="end" fill="#555">{value:g}</text>')
    for tokens in token_ticks:
        x = at(tokens, low)[0]
        label = f"{tokens / 1e6:g} M" if most >= 1e6 else f"{tokens / 1e3:g} k"
        out.append(f'<text x="{x:.1f}" y="{height - bottom + 18}" text-anchor="middle" fill="#555">{label}</text>')
    out.append(f'<text x="{(left + width - right) / 2}" y="{height - 4}" text-anchor="middle" fill="#555">tokens '
               'trained</text>')
    out.append(f'<text transform="translate(12 {(height - bottom) / 2 + top}) rotate(-90)" text-anchor="middle" '
               'fill="#555">loss, nats a token</text>')
    ends = []
    for model, line in lines.items():
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in (at(*p) for p in line))
        out.append(f'<polyline points="{points}" fill="none" stroke="{COLOURS[model]}" stroke-width="2"/>')
        ends.append([at(*line[-1])[1], model])
    ends.sort()
    for i in range(1, len(ends)):  # labels must not lie on one another
        ends[i][0] = max(ends[i][0], ends[i - 1][0] + 15)
    for y, model in ends:
        out.append(f'<text x="{width - right + 8}" y="{y + 4:.1f}" fill="{COLOURS[model]}">{TITLES[model]}</text>')
    return "\n".join(out + ["</svg>"])


def page(result, metrics, method, keep, passages=(), notes=()):
    first, second, _ = verdict(result, method, keep)
    out = ["<!doctype html>", "<html lang=en><head><meta charset=utf-8>",
           "<meta name=viewport content='width=device-width'>", "<title>EMO and a standard MoE</title>",
           f"<style>{STYLE}</style></head><body>", "<h1>An EMO next to a standard mixture of experts</h1>",
           f"<p>{html.escape(first)}</p><p>{html.escape(second)}</p>",
           "<h2>Bits per byte by domain</h2>",
           f"<p class=note>Subsets picked from one held-out document of the domain (method: {html.escape(method)}, "
           f"{result['draws']} draw{'s' if result['draws'] > 1 else ''}); the {result['shared']} shared expert always "
           "stays. Growth is against the same model with all its experts.</p>",
           html_table(domain_rows(result, method), total=True), "<h2>On average</h2>", html_table(summary_rows(result)),
           "<h2>Training</h2>", curves(metrics)]
    if passages:
        out.append("<h2>Generated from a subset</h2>")
    for passage in passages:
        out.append(f"<p class=note>{html.escape(passage['domain'])}</p><blockquote><span class=prompt>"
                   f"{html.escape(passage['prompt'])}</span>{html.escape(passage['text'])}</blockquote>")
    out += [f"<p class=note>{html.escape(note)}</p>" for note in notes]
    return "\n".join(out + ["</body></html>", ""])
