"""Runs the cluster test with each load balancer and without one, and compares the tables that come of it with docs/scaling.md.

    main.py [--write] [--jobs N] --relay BINARY --work FOLDER [BALANCER...]
"""

import argparse
import asyncio
import json
import pathlib
import re
import sys

from scene import Scene
from sharding import Sharding

ROOT = pathlib.Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "docs/scaling.md"
BEGIN, END = "<!-- tests/cluster/run prints this table: {} -->\n", "<!-- end of the table -->\n"
SHARDING = "sharding"  # by the clients, without a load balancer
KINDS = ["HAProxy", "nginx", "Caddy", "Envoy", SHARDING]
# A scene takes a minute. At this, something hangs.
BOUND = 240


async def run_one(kind, arguments):
    """Runs the scene of one load balancer, and writes its rows."""
    work = arguments.work / kind
    (work / "raw").mkdir(parents=True)
    make = Sharding if kind == SHARDING else Scene
    scene = make(kind, arguments.relay, work, ROOT / "deploy/cluster")
    try:
        async with asyncio.timeout(BOUND):
            await scene.run()
    except Exception as error:
        scene.check("runs to the end", False, f"{type(error).__name__} {error}")
        raise
    finally:
        (work / "rows.json").write_text(json.dumps([scene.rows, scene.readings]))
    return scene.failures


async def run_all(kinds, arguments):
    """Runs the scenes in processes of their own, some at a time. The rows of each."""
    free = asyncio.Semaphore(arguments.jobs)

    async def run(kind):
        async with free:
            command = [sys.executable, "-B", __file__, "--one", "--relay", arguments.relay, "--work", arguments.work, kind]
            process = await asyncio.create_subprocess_exec(*map(str, command))
            if await process.wait() != 0:
                print(f"FAIL {kind}: exit code {process.returncode}", flush=True)
        rows = arguments.work / kind / "rows.json"
        return json.loads(rows.read_text()) if rows.exists() else [{}, {}]

    return await asyncio.gather(*map(run, kinds))


def table(heading, kinds, rows):
    names = list(dict.fromkeys(name for each in rows for name in each))
    lines = [f"| {heading} | {' | '.join(kinds)} |", f"|---|{'---|' * len(kinds)}"]
    lines += [f"| {name} | {' | '.join(each.get(name, '-') for each in rows)} |" for name in names]
    return "\n".join(lines) + "\n"


def comparable(text):
    """The table without the numbers that differ from run to run: pairs that missed each other."""

    def kept(match):
        count, total = match.groups()
        return match[0] if count == total else f"some of {total}"

    return re.sub(r"(\d+) of (\d+)", kept, text)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--relay", type=pathlib.Path, required=True)
    parser.add_argument("--work", type=pathlib.Path, required=True)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--write", action="store_true", help="write the tables into docs/scaling.md")
    parser.add_argument("--one", action="store_true")
    parser.add_argument("kinds", nargs="*", metavar="balancer")
    arguments = parser.parse_args()
    arguments.kinds = arguments.kinds or KINDS
    if unknown := set(arguments.kinds) - set(KINDS):
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(KINDS)}")
    if arguments.one:
        sys.exit(asyncio.run(run_one(arguments.kinds[0], arguments)) > 0)
    results = asyncio.run(run_all(arguments.kinds, arguments))
    rows, readings = zip(*results, strict=True)
    read = {kind: each for kind, each in zip(arguments.kinds, readings, strict=True) if kind != SHARDING}
    tables = [table("pairs that met", arguments.kinds, rows), table("in the query", list(read), list(read.values()))]
    print("".join(f"     {line}\n" for line in "\n".join(tables).splitlines()))
    if arguments.kinds == KINDS:
        for name, new in zip(("phases", "queries"), tables, strict=True):
            compare(name, new, arguments.write)


def compare(name, new, is_written):
    """Compares a table with that of the document, or writes it there."""
    begin = BEGIN.format(name)
    before, found, rest = DOCUMENT.read_text().partition(begin)
    old, ended, after = rest.partition(END)
    if is_written and found and ended:
        DOCUMENT.write_text(before + begin + new + END + after)
        return
    is_same = comparable(old) == comparable(new)
    print(f"{'ok  ' if is_same else 'FAIL'} the table of {name} in docs/scaling.md is that of this run")


main()
