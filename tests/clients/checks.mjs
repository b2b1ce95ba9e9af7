// Shared by the scripts on Node: running checks, and a client on `ws` that queues received messages.

import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { basename } from 'node:path';
import WebSocket from 'ws';

const CHECK_MS = 30_000;
const SCRIPT = basename(process.argv[1]);

export const MIB = 1024 * 1024;
export const LEFT = '1000 peer disconnected';
export const LOST = '1011 peer connection lost';

/// The relay's address, HOST:PORT.
export const address = process.argv[2];

let checks = 0;
let clients = [];

/// Runs one check with a URL of its own, prints its line, and ends its clients.
export async function check(name, body) {
    checks += 1;
    const url = `ws://${address}/?pair=${SCRIPT}-${checks}`;
    let timer;
    const timeout = new Promise((_, reject) => {
        timer = setTimeout(() => reject(new Error(`not done after ${CHECK_MS} ms`)), CHECK_MS);
    });
    try {
        await Promise.race([body(url), timeout]);
        console.log(`ok   ${SCRIPT}: ${name}`);
    } catch (error) {
        process.exitCode = 1;
        console.log(`FAIL ${SCRIPT}: ${name}: ${error.stack}`);
    }
    clearTimeout(timer);
    for (const client of clients) {
        client.socket.terminate();
    }
    clients = [];
}

/// Connects a client.
export async function connect(url, protocols = [], options = {}) {
    const client = new Client(url, protocols, options);
    await client.opened;
    return client;
}

/// Connects the two clients of a pair.
export async function pair(url) {
    return [await connect(url), await connect(url)];
}

class Client {
    #received = [];
    #waiting = [];

    constructor(url, protocols, options) {
        this.socket = new WebSocket(url, protocols, options);
        this.opened = new Promise((resolve, reject) => {
            this.socket.on('open', resolve);
            this.socket.on('error', reject);
        });
        // The code and reason of the close frame. Messages in the queue can still be read after it.
        this.closed = new Promise((resolve) => {
            this.socket.on('close', (code, reason) => {
                resolve(`${code} ${reason}`);
                for (const { reject } of this.#waiting) {
                    reject(new Error(`closed with ${code} ${reason} instead of a message`));
                }
            });
        });
        this.socket.on('message', (data, isBinary) => {
            const message = isBinary ? data : `text: ${data}`;
            const waiting = this.#waiting.shift();
            waiting ? waiting.resolve(message) : this.#received.push(message);
        });
        clients.push(this);
    }

    /// Sends a message, and waits until the kernel has it.
    send(data, options = {}) {
        return new Promise((resolve, reject) => {
            this.socket.send(data, options, (error) => (error ? reject(error) : resolve()));
        });
    }

    /// The next message.
    next() {
        if (this.#received.length > 0) {
            return Promise.resolve(this.#received.shift());
        }
        return new Promise((resolve, reject) => this.#waiting.push({ resolve, reject }));
    }

    /// Waits until the relay has answered a ping, which shows that it has everything sent before.
    async ping(data = '') {
        const pong = new Promise((resolve) => this.socket.once('pong', resolve));
        this.socket.ping(data);
        assert.equal(String(await pong), data);
    }
}

/// Asserts that the next message is `expected`, without printing megabytes if it is not.
export async function receives(client, expected) {
    const message = await client.next();
    assert.equal(message.length, Buffer.byteLength(expected));
    assert.equal(sha256(message), sha256(expected));
}

export function sha256(data) {
    return createHash('sha256').update(data).digest('hex');
}

export { assert, randomBytes };
