"""The load, and the questions to Prometheus, of .ci/operations.

operations.py load URL: clients of all kinds, until the relay ends.
operations.py queries PROMETHEUS OPERATIONS: each query of the dashboard and of the alerts, one line for each check.
operations.py down PROMETHEUS: checks that a relay that has gone is an alert.
"""

import asyncio
import json
import pathlib
import sys
import time
import urllib.parse
import urllib.request

PAIRS = 20
WAITING = 5
PATIENCE = 30  # seconds for each check
SCRAPES = 8  # enough for a rate over the dashboard's shortest interval
DEPLOY = pathlib.Path("deploy/prometheus")


async def load(url):
    from websockets.asyncio.client import connect
    from websockets.exceptions import ConnectionClosed, InvalidStatus

    def client(code):
        return connect(f"{url}/?pair=operations-code-{code}", max_size=None, ping_interval=None, proxy=None)

    async def refused(target):
        try:
            async with connect(url + target, proxy=None):
                raise AssertionError("admitted")
        except InvalidStatus:
            pass

    async def talk(code):
        a, b = await client(code), await client(code)
        while True:
            await a.send(b"x" * 4096)
            await b.recv()
            await asyncio.sleep(0.02)

    async def come_and_go():
        for nth in range(1_000_000):
            a, b = await client(f"short-{nth}"), await client(f"short-{nth}")
            await a.send("text, which is dropped")
            await refused("/")
            await refused("/?pair=operations-code-0")
            await a.close()
            await b.wait_closed()
            alone = await client(f"alone-{nth}")
            await alone.close()
            await asyncio.sleep(0.1)

    waiting = [await client(f"waiting-{nth}") for nth in range(WAITING)]
    tasks = [asyncio.create_task(talk(nth)) for nth in range(PAIRS)] + [asyncio.create_task(come_and_go())]
    await asyncio.sleep(1)
    print("under load", flush=True)
    try:
        await asyncio.gather(*tasks)
    except (ConnectionClosed, OSError, EOFError):
        pass  # the relay has stopped
    del waiting


def get(url):
    with urllib.request.urlopen(url, timeout=PATIENCE) as response:
        return json.load(response)


def query(prometheus, expression):
    parameters = urllib.parse.urlencode({"query": expression})
    answer = get(f"{prometheus}/api/v1/query?{parameters}")
    assert answer["status"] == "success", answer
    return answer["data"]["result"]


def eventually(what, holds):
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        try:
            found = holds()
            if found:
                return found
        except OSError:
            pass  # Prometheus has not started yet
        time.sleep(0.2)
    raise AssertionError(f"still not true: {what}")


def check(name, body):
    try:
        body()
        print(f"ok   {name}", flush=True)
    except Exception as error:
        print(f"FAIL {name}: {error!r}", flush=True)


def expressions(dashboard):
    """Each query of the dashboard, as Grafana sends it."""
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            expression = target["expr"]
            for variable, value in (("$job", "arc-relay"), ("$instance", ".+"), ("$__rate_interval", "5s")):
                expression = expression.replace(variable, value)
            yield panel["title"], expression


def queries(prometheus, operations):
    def scraped():
        eventually("Prometheus has scraped often enough", lambda: int(
            (query(prometheus, 'count_over_time(up{job="arc-relay"}[1m])') or [{"value": [0, "0"]}])[0]["value"][1]) >= SCRAPES)
        found = query(prometheus, '{__name__=~"up|scrape_duration_seconds", job="arc-relay"}[1m]')
        assert all(value == "1" for series in found if series["metric"]["__name__"] == "up" for _, value in series["values"]), found

    def metadata():
        # Only OpenMetrics tells a unit.
        found = get(f"{prometheus}/api/v1/metadata?metric=arc_relay_pair_wait_seconds")["data"]
        about = found["arc_relay_pair_wait_seconds"][0]
        assert (about["type"], about["unit"]) == ("histogram", "seconds"), about

    def numbers():
        info = get(f"{operations}/info")
        for state in ("paired", "waiting"):
            eventually(f"{state} is that of /info", lambda: int(
                query(prometheus, f'arc_relay_pairs{{state="{state}"}}')[0]["value"][1]) >= info["pairs"][state] - 1)
        assert info["pairs"]["paired"] >= PAIRS and info["pairs"]["waiting"] >= WAITING, info
        rate = float(query(prometheus, "rate(arc_relay_forwarded_bytes_total[5s])")[0]["value"][1])
        assert rate > 4096 * PAIRS, f"{rate} bytes per second"
        for name in ('arc_relay_rejected_total{reason="pair_full"}', 'arc_relay_rejected_total{reason="pair_code"}',
                     'arc_relay_closed_total{outcome="left"}', "arc_relay_dropped_messages_total", "arc_relay_unmet_total",
                     "arc_relay_pair_wait_seconds_count", "arc_relay_pair_duration_seconds_count"):
            assert float(query(prometheus, name)[0]["value"][1]) > 0, name

    def dashboard():
        asked = list(expressions(json.loads((DEPLOY / "grafana.json").read_text())))
        assert len(asked) > 20, len(asked)
        for title, expression in asked:
            result = query(prometheus, expression)
            assert result, f"{title}: nothing for {expression}"
            assert all(value["value"][1] not in ("NaN", "+Inf") for value in result), f"{title}: {result}"
        print(f"     {len(asked)} queries", flush=True)

    def every_metric_is_used_by_the_dashboard():
        names = set(get(f"{prometheus}/api/v1/label/__name__/values")["data"])
        names = {name for name in names if name.startswith(("arc_relay_", "process_"))}
        text = (DEPLOY / "grafana.json").read_text()
        unused = {name for name in names if name not in text}
        # The sum of a histogram makes a mean, and its count of ends is that of its last bucket.
        histograms = {f"arc_relay_pair_{what}_seconds_{part}" for what in ("wait", "duration") for part in ("sum", "count")}
        assert unused <= histograms, unused - histograms

    def alerts():
        rules = get(f"{prometheus}/api/v1/rules")["data"]["groups"][0]["rules"]
        wrong = [rule["name"] for rule in rules if rule["health"] != "ok" or rule["state"] == "firing"]
        assert len(rules) > 10 and not wrong, wrong

    check("it scrapes the relay", scraped)
    check("the relay speaks OpenMetrics, with units", metadata)
    check("its numbers are those of /info, and tell of the load", numbers)
    check("each query of the dashboard has an answer", dashboard)
    check("the dashboard shows every metric", every_metric_is_used_by_the_dashboard)
    eventually("the rules are evaluated", lambda: all(
        rule["health"] == "ok" for rule in get(f"{prometheus}/api/v1/rules")["data"]["groups"][0]["rules"]))
    check("each alert is evaluated, and none fires under a usual load", alerts)


def down(prometheus):
    def pending():
        eventually("ArcRelayDown is pending", lambda: any(
            alert["labels"]["alertname"] == "ArcRelayDown" for alert in get(f"{prometheus}/api/v1/alerts")["data"]["alerts"]))

    check("a relay that has gone is an alert", pending)


match sys.argv[1:]:
    case ["load", url]:
        asyncio.run(load(url))
    case ["queries", prometheus, operations]:
        queries(prometheus, operations)
    case ["down", prometheus]:
        down(prometheus)
    case _:
        sys.exit(__doc__)
