// The bundle of a page has to stay small: its size with gzip, without and with encryption, and the bound of the first.

import { build } from "esbuild";
import { gzipSync } from "node:zlib";

async function size(entry) {
  const { outputFiles } = await build({ entryPoints: [entry], bundle: true, minify: true, format: "esm", write: false });
  return gzipSync(outputFiles[0].contents, { level: 9 }).length;
}

const [plain, encrypted, resuming] = await Promise.all(["index", "e2e", "resume"].map((name) => size(`dist/${name}.js`)));
console.log(`${plain} bytes, and ${encrypted} for encryption, ${resuming} for resuming`);
if (plain >= 5000) throw new Error("without encryption, 5,000 bytes are the most");
