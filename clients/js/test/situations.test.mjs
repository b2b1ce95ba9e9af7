// What a page sees in each situation: without the subprotocol, with it, and by this client. The table of docs/protocol.md
// has to be what this test has seen.

import assert from "node:assert/strict";
import { once } from "node:events";
import { readFile } from "node:fs/promises";
import test from "node:test";
import { WebSocket } from "ws";
import { pages } from "./chromium.mjs";
import { newCode, relay, within } from "./support.mjs";

const KINDS = ["without", "with", "client"];

const DOCUMENT = new URL("../../../docs/protocol.md", import.meta.url);

/** Runs in the page: begins a connection of a kind, and writes down what comes. */
function watch([kind, target]) {
  const seen = [];
  const tell = (text) => seen.push(text);
  const url = new URL(target);
  const ended = new Promise((resolve) => {
    if (kind === "client") {
      const { pair: code, side, token } = Object.fromEntries(url.searchParams);
      const peer = arc.connect({ url: url.origin, code, ...(side && { side }), ...(token && { token }) });
      peer.on("state", (state) => state === "waiting" && tell("`waiting`"));
      peer.on("paired", () => tell("`paired`"));
      peer.on("unpaired", () => tell("`unpaired`"));
      peer.on("message", ({ length }) => tell(`a message of ${length} bytes`));
      peer.on("draining", (within) => tell(`\`draining\` ${within}`));
      // The first end is told, and not what follows when this test closes the connection.
      const end = (name, code, reason) => {
        if (isOver) return;
        isOver = true;
        tell(`\`${name}\` ${code} ${reason}`.trim());
        resolve();
        peer.close();
      };
      let isOver = false;
      peer.on("reconnecting", ({ code, reason }) => end("reconnecting", code, reason));
      peer.on("closed", ({ code, message }) => end("closed", code, message));
      globalThis.send = (data) => peer.send(data);
      globalThis.buffered = async (sent) => {
        const first = await Promise.race([sent.then(() => "gone"), new Promise((done) => setTimeout(done, 1500, "waits"))]);
        return first === "waits" ? "`send` waits" : "`send` does not wait";
      };
    } else {
      const socket = new WebSocket(target, kind === "with" ? ["arc-relay.v1"] : []);
      socket.binaryType = "arraybuffer";
      socket.onopen = () => tell("`open`");
      socket.onmessage = ({ data }) =>
        tell(typeof data === "string" ? `\`${data.replace(/"after":\d+/, '"after":N')}\`` : `a message of ${data.byteLength} bytes`);
      socket.onclose = ({ code, reason }) => {
        tell(`\`close\` ${code} ${reason}`.trim());
        resolve();
      };
      globalThis.send = (data) => socket.send(data);
      globalThis.buffered = async () => {
        await new Promise((done) => setTimeout(done, 1500));
        return socket.bufferedAmount > 0 ? "`bufferedAmount` stays above 0" : "`bufferedAmount` is 0";
      };
    }
  });
  globalThis.seen = seen;
  globalThis.ended = ended;
}

const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

/** Waits until something holds. */
const until = (what, holds) =>
  within(what, (async () => { while (!(await holds())) await pause(20); })());

/** What a situation can use. */
async function stage(t, page, kind, flags) {
  const own = await relay(t, 0, ...flags);
  const code = newCode();
  const sockets = [];
  t.after(() => sockets.forEach((socket) => socket.terminate()));
  const at = (query = "") => `${own.url}/?pair=${code}${query}`;
  const begin = (query) => page.evaluate(watch, [kind, at(query)]);
  const sees = (what) => within(what, page.waitForFunction((what) => seen.some((text) => text.includes(what)), what));
  return {
    kind,
    relay: own,
    page,
    /** Opens the page's connection. */
    begin,
    /** Opens it, and waits until it is the first with its code. */
    async wait(query) {
      await begin(query);
      await sees(kind === "without" ? "open" : "waiting");
    },
    /** Another client of the same code, once it is open. */
    other: async (query) => {
      const socket = new WebSocket(at(query));
      sockets.push(socket);
      socket.messages = [];
      socket.on("message", (data, isBinary) => socket.messages.push(isBinary ? data : String(data)));
      socket.on("error", () => {});
      await within("another client", once(socket, "open"));
      return socket;
    },
    /** Waits until the page has seen something. */
    sees,
    ends: () => within("the end", page.evaluate(() => ended)),
    seen: () => page.evaluate(() => seen),
  };
}

/** Joins the page and another client, and forgets what the page has seen until then. */
async function meet(on) {
  await on.wait();
  const other = await on.other();
  other.send("x".repeat(7), { binary: true });
  await on.sees("7 bytes");
  await on.page.evaluate(() => { seen.length = 0; });
  return other;
}

/** Each situation, with the flags that the relay needs for it. */
const SITUATIONS = [
  ["it waits for its peer", [], async (on) => {
    await on.wait();
    await pause(300); // it sees no more than it saw at once
  }],
  ["its peer comes", [], async (on) => {
    await on.wait();
    await on.page.evaluate(() => { seen.length = 0; });
    (await on.other()).send(new Uint8Array(3));
    await on.sees("3 bytes");
  }],
  ["its peer sends 10 MiB in one message", [], async (on) => {
    (await meet(on)).send(new Uint8Array(10 << 20));
    await on.sees("bytes");
  }],
  ["its peer is slow, and it sends 32 MiB", [], async (on) => {
    (await meet(on)).pause();
    const said = await within("the buffer", on.page.evaluate(() => {
      let sent;
      for (let nth = 0; nth < 32; nth++) sent = send(new Uint8Array(1 << 20));
      return buffered(sent);
    }));
    await on.page.evaluate((said) => seen.push(said), said);
  }],
  ["it sends text by mistake", [], async (on) => {
    const other = await meet(on);
    await on.page.evaluate(() => send("hello"));
    if (on.kind === "with") return on.ends();
    await on.page.evaluate(() => send(new Uint8Array(3).buffer));
    await until("the message behind it", () => other.messages.some((data) => data.length === 3));
    const came = other.messages.some((data) => String(data) === "hello");
    await on.page.evaluate((came) => seen.push(came ? "the peer gets it as a binary message" : "nothing, and the peer nothing"), came);
  }],
  ["its peer leaves", [], async (on) => {
    (await meet(on)).close(4321, "a reason");
    await on.ends();
  }],
  ["its peer is lost", [], async (on) => {
    (await meet(on))._socket.resetAndDestroy();
    await on.ends();
  }],
  ["no peer comes within `--pair-ttl`", ["--pair-ttl", "1s"], async (on) => {
    await on.begin();
    await on.ends();
  }],
  ["it comes again elsewhere, with its `side`", [], async (on) => {
    await on.wait("&side=phone");
    await on.other("&side=phone");
    await on.ends();
  }],
  ["the code has two clients", ["--probe-timeout", "0"], async (on) => {
    await on.other();
    await on.other();
    await on.begin();
    await on.ends();
  }],
  ["its code is too short", ["--min-code-length", "99"], async (on) => {
    await on.begin();
    await on.ends();
  }],
  ["it has no token", ["--access-token-file", new URL("tokens.txt", import.meta.url).pathname], async (on) => {
    await on.begin();
    await on.ends();
  }],
  ["its origin is not allowed", ["--allow-origin", "https://app.example"], async (on) => {
    await on.begin();
    await on.ends();
  }],
  ["it has too many connections", ["--max-connections-per-client", "1"], async (on) => {
    await on.other();
    await on.begin();
    await on.ends();
  }],
  ["it comes too often", ["--max-joins-per-minute", "1"], async (on) => {
    await on.other();
    await on.begin();
    await on.ends();
  }],
  ["the relay is full", ["--max-waiting", "1"], async (on) => {
    const socket = new WebSocket(`${on.relay.url}/?pair=another`);
    await within("another pair", once(socket, "open"));
    await on.begin();
    await on.ends();
    socket.terminate();
  }],
  ["the relay stops while it waits", ["--drain-delay", "1s", "--drain-timeout", "1s"], async (on) => {
    await on.wait();
    on.relay.kill("SIGTERM");
    await on.ends();
  }],
  ["the relay is killed", [], async (on) => {
    await meet(on);
    await on.relay.stop("SIGKILL");
    await on.ends();
  }],
  ["the relay is not there", [], async (on) => {
    await on.relay.stop("SIGKILL");
    await on.begin();
    await on.ends();
  }],
];

/** The rows of docs/protocol.md, without the columns of other clients. */
async function table() {
  const lines = (await readFile(DOCUMENT, "utf8")).split("\n");
  const start = lines.findIndex((line) => line.startsWith("| situation |"));
  const rows = lines.slice(start, lines.indexOf("", start)).map((line) => line.split("|").slice(1, -1).map((cell) => cell.trim()));
  assert.deepEqual(rows[0].slice(0, 4), ["situation", "without `arc-relay.v1`", "with it", "`clients/js`"]);
  return rows.slice(2).map((row) => row.slice(0, 4));
}

test("a page sees in each situation what docs/protocol.md says", async (t) => {
  const open = await pages(t);
  const cells = async ([situation, flags, act]) => {
    const row = await Promise.all(KINDS.map(async (kind) => {
      const page = await open();
      const on = await stage(t, page, kind, flags);
      await act(on);
      const seen = await on.seen();
      await page.close();
      return seen.join(", ") || "nothing";
    }));
    return [situation, ...row];
  };
  const rows = [];
  for (const situation of SITUATIONS) rows.push(await cells(situation));
  const seen = rows.map((row) => `| ${row.join(" | ")} |`).join("\n");
  assert.deepEqual(await table(), rows, `docs/protocol.md has another table. This is what the pages saw:\n${seen}`);
});
