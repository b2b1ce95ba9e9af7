// A relay with the demo, and browsers at its page. Every wait has a bound.

import assert from "node:assert/strict";
import { browser as chromium } from "../../js/test/chromium.mjs";
import { relay as start } from "../../js/test/support.mjs";

export { line, within } from "../../js/test/support.mjs";

/** The longest wait of a page, in milliseconds. */
export const PATIENCE = 30_000;

/** Starts a relay with the demo. `page` is where it is. */
export async function demo(t, ...flags) {
  const relay = await start(t, 0, "--demo", ...flags);
  return { ...relay, page: `http://127.0.0.1:${relay.port}/` };
}

/**
 * Opens a browser. Its pages may ask for nothing but `origin`, and must not break their policy.
 *
 * `open` makes a page in a context of its own, as on another device.
 */
export async function browser(t, ...flags) {
  const browser = await chromium(t, ...flags);
  const open = async (url, options = {}) => {
    const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, ...options });
    context.setDefaultTimeout(PATIENCE);
    const page = await context.newPage();
    await watch(page, new URL(url).host);
    await page.goto(url);
    return page;
  };
  return { open, browser };
}

const problems = new WeakMap();

/** Notes what a page asks for elsewhere, and each violation of its policy. */
async function watch(page, host) {
  const found = [];
  problems.set(page, found);
  const look = (url) => !/^(data|blob):/.test(url) && new URL(url).host !== host && found.push(`asked for ${url}`);
  page.on("request", (request) => look(request.url()));
  page.on("websocket", (socket) => look(socket.url()));
  page.on("pageerror", (error) => found.push(String(error)));
  page.on("console", (message) => /Content.Security|Trusted/i.test(message.text()) && found.push(message.text()));
  await page.addInitScript(() =>
    addEventListener("securitypolicyviolation", ({ violatedDirective, blockedURI }) =>
      console.error("Content Security Policy violated", violatedDirective, blockedURI),
    ),
  );
}

export const assertCalm = (...pages) => pages.forEach((page) => assert.deepEqual(problems.get(page), []));

/** Waits until the page's state begins with this. */
export const state = (page, text) => page.locator("#state", { hasText: text }).waitFor();

/** The link that a page shows. */
export async function linkOf(page) {
  await page.locator("#invite").waitFor();
  return page.locator("#link").inputValue();
}

/** Two pages that have met. */
export async function pair(t, open, url, options) {
  const first = await open(url, options);
  const link = await linkOf(first);
  const second = await open(link, options);
  await Promise.all([state(first, "Connected"), state(second, "Connected")]);
  return [first, second];
}

export async function say(page, text) {
  await page.locator("#message").fill(text);
  await page.keyboard.press("Enter");
}

/** Waits for a line of the log. */
export const reads = (page, text) => page.locator("#log .text", { hasText: text }).first().waitFor();

/** Sends a file, given as a path or as name and bytes. */
export const attach = (page, file) => page.locator("#file").setInputFiles(file);
