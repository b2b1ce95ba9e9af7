// Pages of Chromium: $CHROMIUM, or the one in the path.

import { once } from "node:events";
import { createServer } from "node:http";
import { build } from "esbuild";
import { chromium } from "playwright-core";

/** Starts Chromium. The test's end closes it. */
export async function browser(t, ...flags) {
  const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: ["--no-sandbox", "--disable-gpu", ...flags], // root has no sandbox, and the page is the test's own
  });
  t.after(() => browser.close());
  return browser;
}

const { outputFiles } = await build({
  stdin: { contents: 'export * from "./dist/index.js"; export * from "./dist/e2e.js";', resolveDir: new URL("..", import.meta.url).pathname },
  bundle: true,
  minify: true,
  format: "iife",
  globalName: "arc",
  write: false,
});

/** Returns a function that opens a page which has the client as `arc`. */
export async function pages(t) {
  const server = createServer((_, response) => {
    response.setHeader("content-type", "text/html");
    response.end("<!doctype html><title>arc-relay</title>");
  });
  await once(server.listen(0, "127.0.0.1"), "listening");
  t.after(() => server.close());
  const chromium = await browser(t);
  return async () => {
    const page = await chromium.newPage();
    await page.goto(`http://127.0.0.1:${server.address().port}/`);
    await page.addScriptTag({ content: outputFiles[0].text });
    return page;
  };
}
