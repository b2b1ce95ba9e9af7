// The page of docs/clients.md as a program like the other recipes: recipe_page.mjs PAGE ADDRESS
//
// It gives the page its standard input as a file whenever the page takes one, and writes what the page has received to standard
// output. It ends when the page has been replaced (4001). .ci/lib/recipes.py runs and bounds it.

import { readFileSync, writeFileSync } from "node:fs";
import { pathToFileURL } from "node:url";
import { setTimeout as sleep } from "node:timers/promises";
import { chromium } from "playwright-core";

const [page, address] = process.argv.slice(2);
writeFileSync("input", readFileSync(0)); // in the temporary folder of the recipe
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM,
  args: ["--no-sandbox", "--disable-gpu"], // root has no sandbox, and the page is this repository's
});
const tab = await browser.newPage();
await tab.goto(`${pathToFileURL(page)}#${address}`);

/** Takes the first message from the list. */
async function taken() {
  const link = tab.locator("#received a").first();
  if ((await link.count()) === 0) return;
  const [download] = await Promise.all([tab.waitForEvent("download"), link.click()]);
  await link.evaluate((link) => link.parentElement.remove());
  return readFileSync(await download.path());
}

let hasGiven = false;
for (let message, state; ; await sleep(20)) {
  while ((message = await taken()) !== undefined) process.stdout.write(message);
  const takes = await tab.locator("#file").isEnabled();
  if (takes && !hasGiven) await tab.locator("#file").setInputFiles("input");
  hasGiven = takes;
  const next = await tab.locator("#state").textContent();
  if (next !== state) console.error(next);
  state = next;
  if (state.startsWith("closed: 4001 ")) break;
}
await browser.close();
process.exitCode = 1;
