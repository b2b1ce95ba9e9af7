// The page in Chromium: $CHROMIUM, or the one in the path. Each page is in a context of its own, as on another device.

import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import path from "node:path";
import test from "node:test";
import jsQR from "jsqr";
import { assertCalm, attach, browser, demo, line, linkOf, pair, reads, say, state } from "./support.mjs";

async function scratch(t) {
  const folder = await mkdtemp(path.join(tmpdir(), "arc-relay-demo-"));
  t.after(() => rm(folder, { recursive: true }));
  return folder;
}

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
  const folder = await scratch(t);
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

test("a third page is told at once that two are there, and meets one of them when the other leaves", async (t) => {
  const relay = await demo(t);
  const { open } = await browser(t);
  const first = await open(relay.page);
  const link = await linkOf(first);
  const second = await open(link);
  await Promise.all([state(first, "Connected"), state(second, "Connected")]);
  const third = await open(link);
  await state(third, "Two others are already connected with this link");
  // A sentence that stays, and what to do, beside the state that changes.
  await third.getByRole("heading", { name: "Two devices are connected already" }).waitFor();
  await third.locator("#closed-reason", { hasText: "This link joins two devices, and both are there." }).waitFor();
  await third.getByRole("button", { name: "Begin anew with another link" }).first().waitFor();
  assert.equal(await third.getByRole("button", { name: "Try again" }).count(), 0);
  await second.close();
  await Promise.all([state(first, "Connected"), state(third, "Connected")]);
  await say(third, "the third one");
  await reads(first, "the third one");
  assert.equal(await third.locator("#closed").isVisible(), false);
  assertCalm(first, third);
});

test("a third page gives up after a minute, says why, and can try again", async (t) => {
  const relay = await demo(t);
  const { open } = await browser(t);
  const [first, second] = await pair(t, open, relay.page);
  const third = await open(first.url());
  await state(third, "Two others are already connected with this link");
  await third.clock.install();
  await third.clock.fastForward(61_000);
  await third.getByRole("button", { name: "Try again" }).waitFor();
  await third.getByRole("heading", { name: "Two devices are connected already" }).waitFor();
  await second.close();
  await state(first, "Waiting");
  await third.getByRole("button", { name: "Try again" }).click();
  await Promise.all([state(first, "Connected"), state(third, "Connected")]);
  assert.equal(await third.locator("#closed").isVisible(), false);
});

test("the QR code holds the link", async (t) => {
  const relay = await demo(t);
  const { open } = await browser(t);
  const first = await open(relay.page);
  const link = await linkOf(first);
  const image = (await first.locator("#code").screenshot()).toString("base64");
  // A page of its own turns the image into pixels.
  const blank = await open("data:text/html,");
  const { data, width, height } = await blank.evaluate(async (image) => {
    const bytes = Uint8Array.from(atob(image), (c) => c.charCodeAt(0));
    const bitmap = await createImageBitmap(new Blob([bytes], { type: "image/png" }));
    const context = new OffscreenCanvas(bitmap.width, bitmap.height).getContext("2d");
    context.drawImage(bitmap, 0, 0);
    const { data, width, height } = context.getImageData(0, 0, bitmap.width, bitmap.height);
    return { data: [...data], width, height };
  }, image);
  assert.equal(jsQR(Uint8ClampedArray.from(data), width, height)?.data, link);
});

const axe = await readFile(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

for (const colorScheme of ["light", "dark"]) {
  test(`${colorScheme}, no state of the page breaks a rule of axe`, async (t) => {
    const relay = await demo(t);
    const strict = await demo(t, "--min-code-length", "99");
    const { open } = await browser(t);
    // The policy would refuse a script that the page does not bring.
    const options = { colorScheme, bypassCSP: true };
    const examine = async (page) => {
      await page.evaluate(axe);
      const { violations } = await page.evaluate(() => axe.run());
      assert.deepEqual(violations.map(({ id, nodes }) => [id, nodes.map(({ html }) => html)]), []);
    };
    const first = await open(relay.page, options);
    const link = await linkOf(first);
    await examine(first);
    const second = await open(link, options);
    await Promise.all([state(first, "Connected"), state(second, "Connected")]);
    await say(first, "hello");
    await attach(first, { name: "small.txt", mimeType: "text/plain", buffer: Buffer.from("small") });
    await reads(second, "hello");
    await second.getByRole("link", { name: "Save small.txt" }).waitFor();
    await examine(first);
    await examine(second);
    const third = await open(link, options);
    await third.locator("#closed").waitFor();
    await examine(third);
    const refused = await open(strict.page, options);
    await state(refused, "The relay refuses this request");
    await examine(refused);
  });
}

test("a page asks for the token that the relay wants", async (t) => {
  const folder = await scratch(t);
  await writeFile(path.join(folder, "tokens"), "hush\n");
  const relay = await demo(t, "--access-token-file", path.join(folder, "tokens"));
  const { open } = await browser(t);
  const first = await open(relay.page);
  const give = async (page, token) => {
    await state(page, "This relay asks for an access token");
    await page.getByLabel("Access token").fill(token);
    await page.keyboard.press("Enter");
  };
  await give(first, "wrong");
  await first.locator("#closed-reason", { hasText: "did not accept this token" }).waitFor();
  await give(first, "hush");
  const second = await open(await linkOf(first));
  await give(second, "hush");
  await Promise.all([state(first, "Connected"), state(second, "Connected")]);
  assertCalm(first, second);
});

test("all works by the keyboard, and where a page is no secure context", async (t) => {
  const relay = await demo(t);
  const { open } = await browser(t, "--host-resolver-rules=MAP relay.test 127.0.0.1");
  const first = await open(`http://relay.test:${relay.port}/`);
  const link = await linkOf(first);
  assert.equal(await first.evaluate(() => isSecureContext), false);
  const tabTo = async (page, id) => {
    for (let nth = 0; nth < 20; nth++) {
      if (await page.evaluate((id) => document.activeElement?.id === id, id)) return;
      await page.keyboard.press("Tab");
    }
    assert.fail(`no Tab leads to ${id}`);
  };
  await tabTo(first, "copy");
  await first.keyboard.press("Enter");
  await first.locator("#copied", { hasText: "Copied" }).waitFor();
  const second = await open(link);
  await Promise.all([state(first, "Connected"), state(second, "Connected")]);
  await tabTo(first, "message");
  await first.keyboard.type("typed");
  await first.keyboard.press("Enter");
  await reads(second, "typed");
  assertCalm(first, second);
});

test("a message that is written offline arrives once, when the page is back", async (t) => {
  const relay = await demo(t);
  const wire = await line(t, relay.port);
  const { open } = await browser(t);
  const first = await open(`${wire.url.replace("ws", "http")}/`);
  const link = await linkOf(first);
  const second = await open(link.replace(new URL(link).host, `127.0.0.1:${relay.port}`));
  await Promise.all([state(first, "Connected"), state(second, "Connected")]);
  // Chromium keeps a WebSocket when it goes offline: the line is cut, too.
  await first.context().setOffline(true);
  wire.refuse(true);
  wire.cut();
  await state(first, "The line was interrupted");
  await say(first, "from afar");
  await first.locator(".own .mark", { hasText: "waits for the other side" }).waitFor();
  wire.refuse(false);
  await first.context().setOffline(false);
  await reads(second, "from afar");
  await first.locator(".own .mark", { hasText: "delivered" }).waitFor();
  assert.equal(await second.locator("#log .text", { hasText: "from afar" }).count(), 1);
});

test("a page whose network is back does not wait for the end of its pause", async (t) => {
  const relay = await demo(t);
  const wire = await line(t, relay.port);
  const { open } = await browser(t);
  const [first, second] = await pair(t, open, `${wire.url.replace("ws", "http")}/`);
  await first.evaluate(() => (Math.random = () => 60)); // the first pause has 500 ms at most, and this one 30 s
  await first.context().setOffline(true);
  wire.refuse(true);
  wire.cut();
  await first.locator("#detail", { hasText: /next attempt in (2\d|30) s/ }).waitFor();
  wire.refuse(false);
  await first.context().setOffline(false);
  await first.locator("#state", { hasText: "Connected" }).waitFor({ timeout: 15_000 });
  await state(second, "Connected");
  assertCalm(first, second);
});

test("the same file can be chosen twice", async (t) => {
  const relay = await demo(t);
  const { open } = await browser(t);
  const [first, second] = await pair(t, open, relay.page);
  const folder = await scratch(t);
  const file = path.join(folder, "again.txt");
  await writeFile(file, "again");
  // What Playwright has for it tells the page of a change, whether there is one or not. Chromium tells one only if there is.
  const devtools = await first.context().newCDPSession(first);
  const { root } = await devtools.send("DOM.getDocument");
  const { nodeId } = await devtools.send("DOM.querySelector", { nodeId: root.nodeId, selector: "#file" });
  for (let count = 1; count <= 2; count++) {
    await devtools.send("DOM.setFileInputFiles", { nodeId, files: [file] });
    await second.getByRole("link", { name: "Save again.txt" }).nth(count - 1).waitFor();
    assert.equal(await first.locator(".file").count(), count);
  }
  assertCalm(first, second);
});

test("files follow each other: one is empty, one is cancelled, and a page that begins anew gets what is left", async (t) => {
  const relay = await demo(t);
  const { open } = await browser(t);
  const [first, second] = await pair(t, open, relay.page);
  const folder = await scratch(t);
  const file = async (name, length) => {
    await writeFile(path.join(folder, name), Buffer.alloc(length, name));
    return path.join(folder, name);
  };
  await attach(first, [await file("empty.txt", 0), await file("cancelled.bin", 40 << 20), await file("last.txt", 10)]);
  await second.getByRole("link", { name: "Save empty.txt" }).waitFor();
  await second.getByRole("button", { name: "Cancel cancelled.bin" }).click();
  for (const page of [first, second]) await page.locator(".file", { hasText: "cancelled" }).first().waitFor();
  await second.getByRole("link", { name: "Save last.txt" }).waitFor();

  const large = await file("large.bin", 45 << 20);
  await attach(first, large);
  await second.locator(".file", { hasText: "large.bin" }).waitFor();
  const link = second.url();
  await second.goto("about:blank");
  await first.locator("#state", { hasText: /again|Waiting/ }).waitFor();
  await say(first, "for the next page");
  await second.goto(link);
  await reads(second, "for the next page");
  await first.locator(".note", { hasText: "opened the page anew" }).waitFor();
  await second.getByRole("link", { name: "Save large.bin" }).waitFor();
  const hash = createHash("sha256").update(await readFile(large)).digest("hex");
  for (const page of [first, second]) await page.locator(".hash", { hasText: `on both sides: ${hash}` }).waitFor();
  assertCalm(first, second);
});
