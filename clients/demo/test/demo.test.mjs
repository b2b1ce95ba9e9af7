// The page in Chromium: $CHROMIUM, or the one in the path. Each page is in a context of its own, as on another device.

import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import test from "node:test";
import { assertCalm, attach, browser, demo, line, linkOf, pair, reads, say, state } from "./support.mjs";

test("two pages meet by the link, and talk", async (t) => {
  const relay = await demo(t);
  const { open } = await browser(t);
  const [first, second] = await pair(t, open, relay.page);
  await say(first, "hello <b>there</b>");
  await reads(second, "hello <b>there</b>");
  await say(second, "and back");
  await reads(first, "and back");
  await first.locator(".own .mark", { hasText: "delivered" }).waitFor();
  assertCalm(first, second);
});

test("a file of 100 MiB arrives hash for hash, though the line is cut twice", async (t) => {
  const relay = await demo(t);
  const cut = await line(t, relay.port);
  const { open } = await browser(t);
  const [first, second] = await pair(t, open, `${cut.url.replace("ws", "http")}/`);
  const folder = await mkdtemp(path.join(tmpdir(), "arc-relay-demo-"));
  t.after(() => rm(folder, { recursive: true }));
  const bytes = randomBytes(100 << 20);
  await writeFile(path.join(folder, "large.bin"), bytes);
  await attach(first, path.join(folder, "large.bin"));
  const received = () => second.locator(".file progress").evaluate(({ value }) => value);
  for (const part of [10 << 20, 40 << 20]) {
    while ((await received().catch(() => 0)) < part) await second.waitForTimeout(20);
    await say(second, `cut at ${part}`);
    cut.cut();
    await reads(first, `cut at ${part}`);
  }
  const hash = createHash("sha256").update(bytes).digest("hex");
  for (const page of [first, second]) await page.locator(".hash", { hasText: `on both sides: ${hash}` }).waitFor({ timeout: 60_000 });
  const saved = second.waitForEvent("download");
  await second.getByRole("link", { name: "Save large.bin" }).click();
  const digest = createHash("sha256");
  for await (const piece of await (await saved).createReadStream()) digest.update(piece);
  assert.equal(digest.digest("hex"), hash);
  // Nothing was lost or doubled.
  assert.equal(await first.locator("#log .text", { hasText: "cut at" }).count(), 2);
  assertCalm(first, second);
});

test("a third page is told why it is refused", async (t) => {
  const relay = await demo(t);
  const { open } = await browser(t);
  const first = await open(relay.page);
  const link = await linkOf(first);
  const second = await open(link);
  await Promise.all([state(first, "Connected"), state(second, "Connected")]);
  const third = await open(link);
  await state(third, "Two others are already connected with this link");
  assertCalm(first, second, third);
});
