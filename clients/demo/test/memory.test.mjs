// The memory of two pages during a file of 100 MiB. It prints the figures that the README has.

import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import test from "node:test";
import { attach, browser, demo, linkOf, state } from "./support.mjs";

const MIB = 1 << 20;

/** The file, in MiB. */
const SIZE = Number(process.env.SIZE ?? 100);

/** The resident memory of a process, in MiB. */
async function resident(pid) {
  const status = await readFile(`/proc/${pid}/status`, "utf8").catch(() => "");
  return Number(/^VmRSS:\s+(\d+) kB/m.exec(status)?.[1] ?? 0) / 1024;
}

/** What one page takes, in MiB: its script with all buffers, its renderer, and the browser's other processes. */
async function gauge(browser, page) {
  const [whole, own] = [await browser.newBrowserCDPSession(), await page.context().newCDPSession(page)];
  const { processInfo } = await whole.send("SystemInfo.getProcessInfo");
  const isRenderer = ({ type }) => type === "renderer";
  // Another renderer waits for a further page, and has done less.
  const { id } = processInfo.filter(isRenderer).sort((one, other) => other.cpuTime - one.cpuTime)[0];
  const others = processInfo.filter((process) => !isRenderer(process)).map(({ id }) => id);
  return {
    collect: () => own.send("HeapProfiler.collectGarbage"),
    async look() {
      const { usedSize, backingStorageSize } = await own.send("Runtime.getHeapUsage");
      const rest = await Promise.all(others.map(resident));
      return {
        script: (usedSize + backingStorageSize) / MIB,
        renderer: await resident(id),
        others: rest.reduce((sum, each) => sum + each, 0),
      };
    },
  };
}

test(`a file of ${SIZE} MiB is never as a whole in a page's memory`, async (t) => {
  const relay = await demo(t);
  const folder = await mkdtemp(path.join(tmpdir(), "arc-relay-memory-"));
  t.after(() => rm(folder, { recursive: true }));
  const file = path.join(folder, "large.bin");
  await writeFile(file, Buffer.concat(Array.from({ length: SIZE }, () => randomBytes(MIB))));

  // Each has a browser of its own, so that processes can be told apart.
  const browsers = [await browser(t), await browser(t)];
  const sender = await browsers[0].open(relay.page);
  const receiver = await browsers[1].open(await linkOf(sender));
  const pages = { sender, receiver };
  await Promise.all(Object.values(pages).map((page) => state(page, "Connected")));
  const gauges = {};
  for (const [nth, [name, page]] of Object.entries(pages).entries()) gauges[name] = await gauge(browsers[nth].browser, page);

  const seen = {};
  const look = async (when, collects = when !== undefined) => {
    for (const [name, gauge] of Object.entries(gauges)) {
      if (collects) await gauge.collect();
      for (const [what, value] of Object.entries(await gauge.look())) {
        const row = ((seen[name] ??= {})[what] ??= { peak: 0 });
        row.peak = Math.max(row.peak, value);
        if (when !== undefined) row[when] = value;
      }
    }
  };
  await look("before");
  let isOver = false;
  const arrives = receiver.locator(".hash").waitFor({ timeout: 120_000 }).finally(() => (isOver = true));
  const begun = Date.now();
  await attach(sender, file);
  const received = () => receiver.evaluate(() => document.querySelector(".file progress")?.value ?? 0);
  for (let isHalf = false; !isOver; ) {
    await look();
    if (isHalf || (await received()) < (SIZE * MIB) / 2) continue;
    isHalf = true;
    await look("half");
  }
  await arrives;
  const seconds = (Date.now() - begun) / 1000;
  await look("after");

  t.diagnostic(`${SIZE} MiB in ${seconds.toFixed(1)} s. MiB before, after a half, at the end, and at most:`);
  for (const [name, rows] of Object.entries(seen)) {
    for (const [what, { before, half, after, peak }] of Object.entries(rows)) {
      t.diagnostic(`| ${name}, ${what} | ${[before, half, after, peak].map(Math.round).join(" | ")} |`);
    }
  }
  for (const [name, { script }] of Object.entries(seen)) {
    assert.ok(script.half < 32 && script.after < 16, `${name} holds ${script.half} MiB, and ${script.after} MiB at the end`);
  }
});
