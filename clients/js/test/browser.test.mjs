// The client in pages of Chromium. The peer of a page is another page, or this program.

import assert from "node:assert/strict";
import test from "node:test";
import { newSecret } from "../dist/e2e.js";
import { pages } from "./chromium.mjs";
import { client, newCode, relay, text, within } from "./support.mjs";

test("two pages exchange encrypted messages, and one sees the other take leave", async (t) => {
  const { url } = await relay(t);
  const open = await pages(t);
  const [daemon, phone] = [await open(), await open()];
  const secret = [...newSecret()];
  await daemon.evaluate(
    ([url, secret]) => {
      globalThis.peer = arc.connect({ url, ...arc.endToEnd(Uint8Array.from(secret)) });
      globalThis.left = new Promise((resolve) => peer.on("unpaired", resolve));
      peer.on("message", (message) => peer.send(message));
    },
    [url, secret],
  );
  const echoed = phone.evaluate(
    async ([url, secret]) => {
      const peer = arc.connect({ url, ...arc.endToEnd(Uint8Array.from(secret)) });
      const sent = new Uint8Array(3 << 20).map((_, at) => at % 251);
      const received = new Promise((resolve) => peer.on("message", resolve));
      await peer.send(sent);
      const echo = await received;
      await peer.close();
      return echo.length === sent.length && echo.every((byte, at) => byte === sent[at]);
    },
    [url, secret],
  );
  assert.ok(await within("the echo", echoed));
  assert.deepEqual(await within("the leave", daemon.evaluate(() => left)), { orderly: true });
});

test("a page and a program are peers", async (t) => {
  const { url } = await relay(t);
  const page = await (await pages(t))();
  const code = newCode();
  const program = client(t, { url, code });
  await page.evaluate(([url, code]) => arc.connect({ url, code }).send("from a page"), [url, code]);
  assert.equal(text(await program.when("message")), "from a page");
});

test("a page learns why it is refused, and where it stands", async (t) => {
  const { url } = await relay(t, 0, "--min-code-length", "4");
  const page = await (await pages(t))();
  const closed = ([url, code]) =>
    new Promise((resolve) => arc.connect({ url, code }).on("closed", ({ code, message }) => resolve([code, message])));
  assert.deepEqual(await within("the end", page.evaluate(closed, [url, "abc"])), [4400, "missing or invalid pair code"]);
  const states = ([url, code]) =>
    new Promise((resolve) => {
      const states = [];
      const peer = arc.connect({ url, code });
      peer.on("state", (state) => states.push(state) && state === "waiting" && resolve(states));
    });
  assert.deepEqual(await within("the wait", page.evaluate(states, [url, newCode()])), ["waiting"]);
});
