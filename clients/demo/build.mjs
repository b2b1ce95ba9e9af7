// Builds the page of `arc-relay start --demo`: one file with its style, its script and the licences of what is in it.
//
//     node build.mjs            writes src/http/demo.html of the relay
//     node build.mjs --check    fails unless that file is what this would write

import { build } from "esbuild";
import { readFile, writeFile } from "node:fs/promises";
import path from "node:path";
import { fileURLToPath } from "node:url";

const ROOT = path.dirname(fileURLToPath(import.meta.url));
const TARGET = path.join(ROOT, "../../src/http/demo.html");

async function bundle(entry) {
  const { outputFiles, metafile } = await build({
    absWorkingDir: ROOT,
    entryPoints: [entry],
    bundle: true,
    nodePaths: [path.join(ROOT, "../js/node_modules")], // one copy of what the client uses, too
    minify: true,
    charset: "utf8",
    target: ["chrome100", "firefox100", "safari15.4"],
    legalComments: "none", // the whole texts are below
    metafile: true,
    write: false,
  });
  return { text: outputFiles[0].text.trim(), inputs: Object.keys(metafile.inputs) };
}

/** The licence of each package that has a file in the bundle. */
async function licences(inputs) {
  const folders = inputs.map((input) => /^(.*node_modules\/(?:@[^/]+\/)?[^/]+)\//.exec(input)?.[1]).filter(Boolean);
  const texts = [...new Set(folders)].sort().map(async (folder) => {
    const { name, version } = JSON.parse(await readFile(path.join(ROOT, folder, "package.json"), "utf8"));
    const text =
      (await readFile(path.join(ROOT, folder, "LICENSE-MIT"), "utf8").catch(() => undefined)) ??
      (await readFile(path.join(ROOT, folder, "LICENSE"), "utf8"));
    return `${name} ${version}\n\n${text.trim()}`;
  });
  return (await Promise.all(texts)).join("\n\n");
}

const style = await bundle("src/style.css");
const script = await bundle("src/main.ts");
if (/<\/(script|style)|<!--/i.test(script.text + style.text)) throw new Error("the bundle would end its element");
const notice = await licences(script.inputs);
if (notice.includes("--")) throw new Error("a licence would end its comment");
const template = await readFile(path.join(ROOT, "src/index.html"), "utf8");
const page = template
  .replace("<style></style>", () => `<style>${style.text}</style>`)
  .replace("<script></script>", () => `<script>${script.text}</script>`)
  .replace("<html", () => `<!-- Made by clients/demo/build.mjs. This page contains arc-relay (MIT OR Apache-2.0), and:\n\n${notice}\n-->\n<html`);

if (process.argv.includes("--check")) {
  const committed = await readFile(TARGET, "utf8").catch(() => "");
  if (committed !== page) {
    console.error("src/http/demo.html is not what its sources give: run `npm run build` in clients/demo");
    process.exit(1);
  }
  console.log(`src/http/demo.html is what its sources give, ${Buffer.byteLength(page)} bytes`);
} else {
  await writeFile(TARGET, page);
  console.log(`src/http/demo.html: ${Buffer.byteLength(page)} bytes`);
}
