#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Programs that measure the same thing, by turns: by_turns.py --rounds N [--json FILE] GROUP LABEL COMMAND...

Three arguments a side: sides of one group are compared, with the first of them; COMMAND is one shell line, whose last line
of output is a JSON object: numbers by name, or what `emo bench --json` prints. A side that fails, or takes longer than
--timeout seconds, is named with its reason and left out from then on. One table at the end: medians over the rounds, the
least and the greatest, and how many times that of a side the first one's median is. --json writes all rounds.
"""

import argparse
import json
import statistics
import subprocess
import sys

# The lines of emo bench that count here, and what they are called.
LINES = {"prefill": "prefill", "decode": "decode", "training step": "training", "forward and backward": "passes"}


def numbers(text):
    """Tokens a second by name, and the other numbers of a side."""
    found = json.loads(text.strip().splitlines()[-1])
    if "lines" not in found:
        return {name: value for name, value in found.items() if isinstance(value, (int, float))}
    out = {"peak_memory": found["peak_memory"]}
    for line in found["lines"]:
        for begin, name in LINES.items():
            if line["name"].startswith(begin):
                out[name] = line["tokens_per_second"]
                out[name + "_share"] = line["share"]["median"]
    for rate, spread in found["limits"].items():
        out["limit_" + rate] = spread["median"]
    out["routing_share"] = sum(p["share"] for p in found.get("profile", []) if p["operator"] == "routing")
    return {name: value for name, value in out.items() if value}


def run(side, timeout):
    try:
        done = subprocess.run(["bash", "-c", side["command"]], capture_output=True, text=True, timeout=timeout)
        if done.returncode != 0:
            return None, (done.stderr.strip() or done.stdout.strip() or "no word")[-200:].splitlines()[-1]
        return numbers(done.stdout), None
    except subprocess.TimeoutExpired:
        return None, "more than %d s" % timeout
    except (ValueError, KeyError, IndexError) as error:
        return None, "no result: %s" % error


def shown(name, value):
    if name == "peak_memory":
        return "%.2f GB" % (value / 1e9)
    if name.endswith("_share"):
        return "%.1f %%" % (100 * value)
    if name.startswith("limit_"):
        return "%.1f G/s" % (value / 1e9)
    return "%.4g" % value


def table(sides):
    rows = [("group", "what", "side", "median", "min", "max", "ratio")]
    for group in dict.fromkeys(side["group"] for side in sides):
        here = [side for side in sides if side["group"] == group]
        for name in dict.fromkeys(n for side in here for result in side["rounds"] for n in result):
            base = None
            for side in here:
                values = [result[name] for result in side["rounds"] if name in result]
                if not values:
                    continue
                median = statistics.median(values)
                ratio = "%.2f" % (base / median) if base is not None and median else ""
                base = median if base is None else base
                rows.append((group, name, side["label"], *(shown(name, v) for v in (median, min(values), max(values))),
                             ratio))
        rows += [(group, "failed", side["label"], side["error"], "", "", "") for side in here if side["error"]]
    widths = [max(len(row[i]) for row in rows) for i in range(7)]
    for row in rows:
        print("  ".join(cell.ljust(w) if i < 3 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths))).rstrip())


def main():
    parser = argparse.ArgumentParser(description="Sides that measure the same, by turns.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--timeout", type=float, default=600.0)
    parser.add_argument("--json", help="file for all numbers")
    parser.add_argument("sides", nargs="+", metavar="GROUP LABEL COMMAND")
    args = parser.parse_args()
    if len(args.sides) % 3:
        parser.error("a side is three arguments: GROUP LABEL COMMAND")
    sides = [{"group": g, "label": n, "command": c, "rounds": [], "error": None}
             for g, n, c in zip(args.sides[::3], args.sides[1::3], args.sides[2::3])]
    for turn in range(args.rounds):
        for side in sides:
            if side["error"]:
                continue
            result, side["error"] = run(side, args.timeout)
            if result is not None:
                side["rounds"].append(result)
            print("round %d, %s, %s: %s" % (turn + 1, side["group"], side["label"], side["error"] or ", ".join(
                "%s %s" % (name, shown(name, value)) for name, value in result.items())), file=sys.stderr, flush=True)
    table(sides)
    if args.json:
        with open(args.json, "w", encoding="utf-8") as file:
            json.dump({"rounds": args.rounds, "sides": sides}, file, indent=1)
            file.write("\n")
    return 0 if any(side["rounds"] for side in sides) else 1


if __name__ == "__main__":
    sys.exit(main())
