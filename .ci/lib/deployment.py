"""Runs a relay as the container of a Deployment does: deployment.py BINARY MANIFESTS, one line for each check."""

import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request

import yaml

TIMEOUT = 30  # seconds for each step, which takes a fraction of a second
binary, manifests = sys.argv[1:]


def check(name, is_right, detail=""):
    print(f"ok   {name}" if is_right else f"FAIL {name}: {detail}", flush=True)


def seconds(duration):
    assert duration.endswith("s"), duration
    return int(duration[:-1])


with open(manifests, encoding="utf-8") as file:
    deployment = next(document for document in yaml.safe_load_all(file) if document["kind"] == "Deployment")
pod = deployment["spec"]["template"]["spec"]
container = pod["containers"][0]
environment = {variable["name"]: variable["value"] for variable in container["env"]}
ports = {port["name"]: port["containerPort"] for port in container["ports"]}

usage = subprocess.run([binary, "start", "--help"], capture_output=True, text=True, timeout=TIMEOUT, check=True).stdout
check("the relay knows each variable", all(f"[{name}" in usage for name in environment), environment)
check("port 8765 is the relay's default", ports["websocket"] == 8765 and "default 8765" in usage, ports)
check("the operations' port is the one that is set", environment["ARC_RELAY_OPS_ADDRESS"].endswith(f":{ports['metrics']}"), ports)
stop = seconds(environment["ARC_RELAY_DRAIN_DELAY"]) + seconds(environment["ARC_RELAY_DRAIN_TIMEOUT"])
check("a stop takes less than its grace period", stop + 5 <= pod["terminationGracePeriodSeconds"], stop)

# Ports of the machine may be taken.
changed = {"ARC_RELAY_PORT": "0", "ARC_RELAY_HOST": "127.0.0.1", "ARC_RELAY_OPS_ADDRESS": "127.0.0.1:0", "ARC_RELAY_DRAIN_DELAY": "1s"}
relay = subprocess.Popen([binary, *container["args"]], env=environment | changed, stdout=subprocess.PIPE, text=True)
try:
    addresses = [relay.stdout.readline().split("://")[1].split("/")[0].split()[0] for _ in range(2)]
    at = dict(zip(("websocket", "metrics"), addresses))

    def get(port, path):
        try:
            return urllib.request.urlopen(f"http://{at[port]}{path}", timeout=TIMEOUT).status
        except urllib.error.HTTPError as error:
            return error.code

    probes = [container[probe]["httpGet"] for probe in ("readinessProbe", "livenessProbe")]
    statuses = [get(probe["port"], probe["path"]) for probe in probes]
    check("the probes succeed", statuses == [200, 200], statuses)
    check("Prometheus finds metrics", get("metrics", "/metrics") == 200)
    relay.send_signal(signal.SIGTERM)
    while (status := get(probes[0]["port"], probes[0]["path"])) == 200:
        pass
    check("a stop ends readiness at once", status == 503, status)
    check("and the relay still lives", get(probes[1]["port"], probes[1]["path"]) == 200)
    code = relay.wait(TIMEOUT)
    check("the stop ends with exit code 0", code == 0, code)
finally:
    if relay.poll() is None:
        os.kill(relay.pid, signal.SIGKILL)
