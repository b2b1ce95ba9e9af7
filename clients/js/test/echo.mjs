// An encrypted echo for the test with the other clients: node echo.mjs URL SECRET, which is hexadecimal.

import { WebSocket } from "ws";
import { endToEnd } from "../dist/e2e.js";
import { connect } from "../dist/index.js";

const [url, secret] = process.argv.slice(2);
const peer = connect({ url, WebSocket, ...endToEnd(Uint8Array.from(Buffer.from(secret, "hex"))) });
for await (const message of peer) {
  await peer.send(message);
  if (message.length === 0) break;
}
await peer.close();
