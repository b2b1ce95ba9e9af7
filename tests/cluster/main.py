"""Runs the cluster test with each load balancer and without one, and compares the table that comes of it with docs/scaling.md.

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
BEGIN, END = "<!-- tests/cluster/run prints this table -->\n", "<!-- end of the table -->\n"
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
        (work / "rows.json").write_text(json.dumps(scene.rows))
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
        return json.loads(rows.read_text()) if rows.exists() else {}

    return await asyncio.gather(*map(run, kinds))


def table(kinds, rows):
    names = list(dict.fromkeys(name for each in rows for name in each))
    lines = [f"| pairs that met | {' | '.join(kinds)} |", f"|---|{'---|' * len(kinds)}"]
    lines += [f"| {name} | {' | '.join(each.get(name, '-') for each in rows)} |" for name in names]
    return "\n".join(lines) + "\n"


def comparable(text):
    """The table without the numbers that differ from run to run: pairs that missed each other."""
    return re.sub(r"\d+ of (\d+)", lambda match: match[0] if match[0] == f"{match[1]} of {match[1]}" else f"some of {match[1]}", text)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--relay", type=pathlib.Path, required=True)
    parser.add_argument("--work", type=pathlib.Path, required=True)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--write", action="store_true", help="write the table into docs/scaling.md")
    parser.add_argument("--one", action="store_true")
    parser.add_argument("kinds", nargs="*", metavar="balancer")
    arguments = parser.parse_args()
    arguments.kinds = arguments.kinds or KINDS
    if unknown := set(arguments.kinds) - set(KINDS):
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(KINDS)}")
    if arguments.one:
        sys.exit(asyncio.run(run_one(arguments.kinds[0], arguments)) > 0)
    rows = asyncio.run(run_all(arguments.kinds, arguments))
    new = table(arguments.kinds, rows)
    print("".join(f"     {line}\n" for line in new.splitlines()))
    if arguments.kinds != KINDS:
        return
    text = DOCUMENT.read_text()
    before, _, rest = text.partition(BEGIN)
    old, _, after = rest.partition(END)
    if arguments.write:
        DOCUMENT.write_text(before + BEGIN + new + END + after)
    else:
        is_same = comparable(old) == comparable(new)
        print(f"{'ok  ' if is_same else 'FAIL'} the table in docs/scaling.md is that of this run")


main()
