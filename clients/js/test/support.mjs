// A relay, a line that fails, and clients for tests. Every wait has a bound.

import { spawn } from "node:child_process";
import { once } from "node:events";
import net from "node:net";
import { createInterface } from "node:readline";
import { WebSocket } from "ws";
import { connect } from "../dist/index.js";

const BINARY = process.env.ARC_RELAY_BIN ?? new URL("../../../target/release/arc-relay", import.meta.url).pathname;

/** The longest wait, in milliseconds. What a test waits for takes a second or two. */
const TIMEOUT = 30_000;

export function within(what, promise, timeout = TIMEOUT) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`it takes too long: ${what}`)), timeout);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** Starts a relay. The test's end stops it. */
export async function relay(t, port = 0, ...flags) {
  const process = spawn(BINARY, ["start", "--host", "127.0.0.1", "--port", String(port), "--log-level", "off", ...flags]);
  const ended = once(process, "exit");
  const stop = async (signal = "SIGTERM") => {
    process.kill(signal);
    await within("the relay's end", ended);
  };
  t.after(() => (process.exitCode === null && process.signalCode === null ? stop("SIGKILL") : undefined));
  const [line] = await within("the relay's start", once(createInterface(process.stdout), "line"));
  const { port: actual } = new URL(line.match(/ws:\/\/\S+/)[0]);
  return { port: Number(actual), url: `ws://127.0.0.1:${actual}`, stop, kill: (signal) => process.kill(signal) };
}

/** A TCP proxy in front of a port, which can cut its connections, stop to carry bytes, and refuse new connections. */
export async function line(t, port) {
  const pairs = new Set();
  let refuses = false;
  const server = net.createServer((near) => {
    if (refuses) return near.destroy();
    const far = net.connect(port, "127.0.0.1");
    const pair = [near, far];
    pairs.add(pair);
    for (const [from, to] of [pair, [far, near]]) {
      from.setNoDelay(true);
      from.on("data", (bytes) => to.write(bytes) || from.pause());
      to.on("drain", () => from.resume());
      from.on("error", () => {});
      from.on("end", () => to.end());
      from.on("close", () => (pairs.delete(pair), to.destroy()));
    }
  });
  await once(server.listen(0, "127.0.0.1"), "listening");
  const line = {
    url: `ws://127.0.0.1:${server.address().port}`,
    /** Ends all connections, without a close frame. */
    cut: () => pairs.forEach((pair) => pair.forEach((socket) => socket.destroy())),
    /** Carries nothing more on the connections that there are. */
    stall: () => pairs.forEach((pair) => pair.forEach((socket) => (socket.removeAllListeners("drain"), socket.pause()))),
    refuse: (does) => (refuses = does),
  };
  t.after(() => (server.close(), line.cut()));
  return line;
}

/** A connection that the test's end closes, with all its events. */
export function client(t, options) {
  const connection = connect({ WebSocket, ...options });
  const events = [];
  for (const kind of ["state", "paired", "unpaired", "message", "draining", "reconnecting", "closed"]) {
    connection.on(kind, (detail) => events.push([kind, detail]));
  }
  t.after(() => connection.close());
  /** Waits for an event from now on, or for one that came already. */
  const when = (kind, matches = () => true, from = 0) =>
    within(
      `${kind} after ${JSON.stringify(events.map(([name]) => name))}`,
      new Promise((resolve) => {
        const found = events.slice(from).find(([name, detail]) => name === kind && matches(detail));
        if (found) return resolve(found[1]);
        const end = connection.on(kind, (detail) => matches(detail) && (end(), resolve(detail)));
      }),
    );
  return { connection, events, when };
}

export const text = (bytes) => new TextDecoder().decode(bytes);

let codes = 0;
export const newCode = () => `js-test-${process.pid}-${codes++}`;
