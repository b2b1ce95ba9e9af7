"""The load balancers: their configurations in deploy/cluster/, with other addresses, without TLS, and how each of them reloads."""

import asyncio
import os
import re
import signal

from relays import free_port, get, until_listening


LONG_WAIT = "5m"
SHORT_WAIT = "12s"


def replaced(text, *replacements):
    """The text with these patterns replaced. Each of them has to occur, so that no change of a file goes unnoticed."""
    for pattern, replacement in replacements:
        text, count = re.subn(pattern, lambda _, new=replacement: new, text, flags=re.M)
        if count == 0:
            raise ValueError(f"{pattern!r} does not occur")
    return text


def with_relays(text, relays):
    """The text with a line for each relay, like its line for the first one, in place of those that it has."""
    lines = [line for line in text.splitlines(keepends=True) if re.search(r"10\.0\.0\.2\d\b", line)]
    listed = ""
    for nth, relay in enumerate(relays, 1):
        named = replaced(lines[0], (r"10\.0\.0\.21", "127.0.0.1"), (r"8765", str(relay.port)))
        listed += named.replace("relay1", f"relay{nth}")
    return replaced(text, (re.escape("".join(lines)), listed))


class Balancer:
    """One of two load balancers in front of the same relays."""

    # Whether a code stays on its relay by a table, and not by its hash only.
    is_sticky = False
    # Whether a second `pair` in a query changes nothing, as in the relay.
    takes_first_pair = True
    # How long a client waits for its peer. A short time is the remedy where no signal can be sent, as in Kubernetes.
    pair_ttl = LONG_WAIT
    # What makes the configuration hash a code as it was sent.
    raw_key = ()

    def __init__(self, name, work, source):
        self.name, self.work, self.source = name, work / name, source
        self.work.mkdir()
        self.port = free_port()
        self.process = None

    def configure(self, relays, *changes):
        raise NotImplementedError

    def command(self):
        raise NotImplementedError

    async def start(self):
        with open(self.work / "log", "ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *self.command(), stdout=log, stderr=log, cwd=self.work, env=os.environ | self.environment()
            )
        await until_listening(self.port)
        # It forwards once it has found relays that are ready.
        async with asyncio.timeout(15):
            while (await get(self.port, "/health"))[0] != 200:
                await asyncio.sleep(0.1)

    def environment(self):
        return {}

    async def reload(self):
        raise NotImplementedError

    async def stop(self):
        """Kills it, without any farewell."""
        if self.process and self.process.returncode is None:
            self.process.kill()
            await self.process.wait()

    def read(self, name):
        return (self.source / name).read_text()

    def write(self, name, text):
        (self.work / name).write_text(text)


class HAProxy(Balancer):
    is_sticky = True
    raw_key = ((r",url_dec\(1\)", ""),)

    def __init__(self, name, work, source, peer_ports):
        super().__init__(name, work, source)
        self.peer_ports = peer_ports

    def configure(self, relays, *changes):
        text = replaced(
            with_relays(self.read("haproxy.cfg"), relays),
            (r"bind :443 .*", f"bind 127.0.0.1:{self.port}"),
            (r"10\.0\.0\.11:10000", f"127.0.0.1:{self.peer_ports[0]}"),
            (r"10\.0\.0\.12:10000", f"127.0.0.1:{self.peer_ports[1]}"),
            *changes,
        )
        self.write("haproxy.cfg", text)

    def command(self):
        return ["haproxy", "-W", "-db", "-L", self.name, "-f", "haproxy.cfg"]

    async def reload(self):
        self.process.send_signal(signal.SIGUSR2)

    async def stop(self):
        # The workers of the master outlive its SIGKILL.
        if self.process and self.process.returncode is None:
            self.process.terminate()
            await self.process.wait()


class Nginx(Balancer):
    raw_key = ((r"hash \$pair_code", "hash $arg_pair"),)

    def configure(self, relays, *changes):
        text = replaced(
            with_relays(self.read("nginx.conf"), relays),
            (r"listen 443 ssl", f"listen 127.0.0.1:{self.port}"),
            (r"^ *ssl_.*\n", ""),
            (r"/etc/nginx/", f"{self.work}/"),
            (r"/var/log/nginx/", f"{self.work}/"),
            (r"worker_processes auto", "worker_processes 2"),
            *changes,
        )
        self.write("nginx.conf", text)
        self.write("pair.js", self.read("pair.js"))

    def command(self):
        return ["nginx", "-c", f"{self.work}/nginx.conf", "-g", f"daemon off; pid {self.work}/pid;"]

    async def reload(self):
        self.process.send_signal(signal.SIGHUP)

    async def stop(self):
        if self.process and self.process.returncode is None:
            self.process.terminate()  # the fast way; its workers outlive SIGKILL
            await self.process.wait()


class Caddy(Balancer):
    takes_first_pair = False

    def configure(self, relays, *changes):
        text = replaced(
            self.read("Caddyfile"),
            (r"auto_https disable_redirects", f"auto_https off\n\tadmin unix/{self.work}/admin"),
            (r"^relay\.example\.org", f"http://127.0.0.1:{self.port}"),
            (r"(10\.0\.0\.\d+:8765 ?)+", " ".join(f"127.0.0.1:{relay.port}" for relay in relays) + " "),
            *changes,
        )
        self.write("Caddyfile", text)

    def environment(self):
        return {"XDG_DATA_HOME": str(self.work), "XDG_CONFIG_HOME": str(self.work), "HOME": str(self.work)}

    def command(self):
        return ["caddy", "run", "--config", "Caddyfile"]

    async def reload(self):
        command = ["caddy", "reload", "--force", "--config", "Caddyfile", "--address", f"unix/{self.work}/admin"]
        with open(self.work / "log", "ab") as log:
            process = await asyncio.create_subprocess_exec(
                *command, stdout=log, stderr=log, cwd=self.work, env=os.environ | self.environment()
            )
        async with asyncio.timeout(20):
            if await process.wait() != 0:
                raise RuntimeError("caddy reload failed")


class Envoy(Balancer):
    pair_ttl = SHORT_WAIT
    raw_key = ((r"function envoy_on_request", "function unused"),)

    def configure(self, relays, *changes):
        text = replaced(
            self.read("envoy.yaml"),
            (r"address: 0\.0\.0\.0, port_value: 443", f"address: 127.0.0.1, port_value: {self.port}"),
            (r"- transport_socket:\n(?s:.*?)\n          filters:", "- filters:"),
            (r"/etc/envoy/", f"{self.work}/"),
            *changes,
        )
        self.write("envoy.yaml", text)
        text = with_relays(self.read("relays.yaml"), relays)
        # Envoy looks at the file again when another one is moved there.
        self.write("relays.yaml.new", text)
        os.replace(self.work / "relays.yaml.new", self.work / "relays.yaml")

    def command(self):
        return ["envoy", "-c", "envoy.yaml", "--disable-hot-restart", "--concurrency", "2", "-l", "warning"]

    async def reload(self):
        """Has happened already: the list of relays was replaced."""


def both(kind, work, source):
    """Two load balancers of a kind."""
    if kind == "HAProxy":
        ports = [free_port(), free_port()]
        return [HAProxy(name, work, source, ports) for name in ("lb1", "lb2")]
    kinds = {"nginx": Nginx, "Caddy": Caddy, "Envoy": Envoy}
    return [kinds[kind](name, work, source) for name in ("lb1", "lb2")]
