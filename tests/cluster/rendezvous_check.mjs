// Holds the reference implementation of rendezvous hashing in JavaScript to the test vectors.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { order } from "../../docs/rendezvous/rendezvous.mjs";

const vectors = await readFile(new URL("../../docs/rendezvous/vectors.json", import.meta.url), "utf8");
const { cases } = JSON.parse(vectors);
assert(cases.length > 20);
for (const { relays, code, order: expected } of cases) {
    assert.deepEqual(await order(relays, code), expected);
}
