"""Checks docker-compose.yml with and without each of its commented proxies: compose.py DIRECTORY

Writes each variant to DIRECTORY, and prints one line for each check. In a line to uncomment, the text follows the `#`
directly, at the indentation of its block. Prose has `# ` at the start of the line."""

import ipaddress
import pathlib
import re
import sys

import yaml

SOURCE = pathlib.Path("docker-compose.yml")


class Strict(yaml.SafeLoader):
    """Refuses duplicate keys, as compose does."""

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key) for key, _ in node.value]
        assert len(keys) == len(set(keys)), f"duplicate keys among {keys}"
        return super().construct_mapping(node, deep)


def variants():
    lines = SOURCE.read_text().splitlines()
    commented = re.compile(r"( *)#(?! \S)(.+)")
    blocks, last = [], None
    for number, line in enumerate(lines):
        if commented.match(line):
            if last != number - 1:
                blocks.append([])
            blocks[-1].append(number)
            last = number
    yield "plain", lines
    for block in blocks:
        text = list(lines)
        for number in block:
            text[number] = commented.sub(r"\1\2", lines[number])
        yield text[block[0]].strip(" :"), text


def examine_network(compose):
    """The relay trusts the proxy's address, which is fixed, and which no other container can get."""
    services = compose["services"]
    (pool,) = compose["networks"]["default"]["ipam"]["config"]
    relay = services["relay"]["environment"]["ARC_RELAY_TRUSTED_PROXIES"]
    trusted = ipaddress.ip_address(relay.removeprefix("${ARC_RELAY_TRUSTED_PROXIES:-").removesuffix("}"))
    assert trusted in ipaddress.ip_network(pool["subnet"]), f"{trusted} is not in the network"
    assert trusted not in ipaddress.ip_network(pool["ip_range"]), f"another container may get {trusted}"
    assert str(trusted) != pool["gateway"], "clients that docker's own proxy forwards would be trusted"
    fixed = {name: service["networks"]["default"]["ipv4_address"] for name, service in services.items() if "networks" in service}
    proxies = set(services) & {"nginx", "caddy"}
    assert fixed == dict.fromkeys(proxies, str(trusted)), f"fixed addresses: {fixed}, trusted: {trusted}"


def examine(text):
    compose = yaml.load(text, Strict)
    assert set(compose) <= {"networks", "services", "volumes"}, list(compose)
    services, volumes = compose["services"], set(compose.get("volumes", {}))
    used = set()
    for name, service in services.items():
        assert "image" in service, f"{name} has no image"
        missing = set(service.get("depends_on", [])) - set(services)
        assert not missing, f"{name} depends on {missing}"
        for mount in service.get("volumes", []):
            source = mount.split(":")[0]
            if source.startswith("."):
                assert pathlib.Path(source).is_file(), f"{name} mounts {source}, which does not exist"
            else:
                used.add(source)
    assert used == volumes, f"volumes: {used} used, {volumes} declared"
    examine_network(compose)
    unset = re.findall(r"\$\{\w+\}", text)
    assert not unset, f"variables without a default: {unset}"
    return services


failures = 0
found = {}
for name, lines in variants():
    text = "\n".join(lines) + "\n"
    pathlib.Path(sys.argv[1], f"compose-{name}.yml").write_text(text)
    try:
        found[name] = set(examine(text))
        print(f"ok   docker-compose.yml, {name}: {', '.join(sorted(found[name]))}")
    except Exception as error:
        failures += 1
        print(f"FAIL docker-compose.yml, {name}: {error}")
if found != {"plain": {"relay"}, "nginx": {"relay", "nginx", "certbot"}, "caddy": {"relay", "caddy"}}:
    failures += 1
    print(f"FAIL docker-compose.yml: unexpected services: {found}")
sys.exit(failures > 0)
