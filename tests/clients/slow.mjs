// A slow reader, and a sender that streams as fast as it can: on Node's `ws` with a heartbeat, or in two pages in Chromium.
//
//     slow.mjs HOST:PORT BYTES_PER_SECOND SECONDS MOST_UNDER_WAY node|browser
//
// The heartbeat is that of the documentation of `ws`: a ping every 30 s, and an end if there was no pong since the last one.
// The sender sends until SECONDS have passed, and closes when the reader has read everything: a page drops messages that it
// has not read when the close frame comes. $CHROMIUM is the browser.

import { once } from 'node:events';
import { createServer } from 'node:http';
import WebSocket from 'ws';

const [, , address, ...given] = process.argv;
const [rate, seconds, most] = given.slice(0, 3).map(Number);
const client = given[3];
const MESSAGE = 16 * 1024;
const HEARTBEAT_MS = 30_000;
const url = `ws://${address}/?pair=${client}-${rate}`;
const name = `slow.mjs: ${client} at ${rate} bytes in a second`;

const [sender, reader, stop] = await (client === 'node' ? inNode() : inPages());
let failure = '';
let underWay = 0;
const begin = Date.now();
let told = begin;
let [isSent, isOver] = [false, false];
const sending = sender.send(seconds).catch((error) => (failure = `the sender: ${error.message}`));
sending.then(() => (isSent = true));
const reading = reader.read(rate).catch((error) => (failure ||= `the reader: ${error.message}`));
reading.then(() => (isOver = true));
while (!isOver && !failure) {
    await Promise.race([reading, new Promise((resolve) => setTimeout(resolve, 250))]);
    const [sent, read] = [await sender.count(), await reader.count()];
    underWay = Math.max(underWay, sent - read);
    if (isSent && sent === read) {
        await sender.close();
        isSent = false;
    }
    if (Date.now() - told > 10_000) {
        told = Date.now();
        console.log(`     ${Math.round((told - begin) / 1000)} s: ${sent} sent, ${read} read`);
    }
}
const [sent, read] = [await sender.count(), await reader.count()];
console.log(`     ${sent} bytes sent, ${read} read, ${underWay} under way at most`);
report(!failure && sent === read, failure ? `after ${Math.round((Date.now() - begin) / 1000)} s, ${failure}` : 'everything arrives');
report(underWay <= most, `${underWay} bytes under way, ${most} at most`);
await stop();
process.exit();

function report(good, text) {
    process.exitCode ||= good ? 0 : 1;
    console.log(`${good ? 'ok  ' : 'FAIL'} ${name}: ${text}`);
}

async function inNode() {
    const [a, b] = [await heartbeat(), await heartbeat()];
    let [sent, read] = [0, 0];
    const send = async (seconds) => {
        const end = Date.now() + seconds * 1000;
        const message = Buffer.alloc(MESSAGE);
        while (Date.now() < end) {
            await new Promise((resolve, reject) => a.send(message, (error) => (error ? reject(error) : resolve())));
            sent += MESSAGE;
        }
    };
    const pace = async (rate) => {
        let due = Date.now();
        let timer;
        b.on('message', (data) => {
            read += data.length;
            due = Math.max(due, Date.now() - 1000) + (data.length * 1000) / rate;
            b.pause(); // some more messages may be in the library's buffer
            clearTimeout(timer);
            timer = setTimeout(() => b.resume(), Math.max(0, due - Date.now()));
        });
        const [code] = await once(b, 'close');
        if (code !== 1000) throw new Error(`closed with ${code}`);
    };
    return [{ send, count: () => sent, close: () => a.close(1000) }, { read: pace, count: () => read }, () => {}];
}

async function heartbeat() {
    const socket = new WebSocket(url);
    await once(socket, 'open');
    let isAlive = true;
    socket.on('error', () => {});
    socket.on('pong', () => (isAlive = true));
    const timer = setInterval(() => {
        if (!isAlive) return socket.terminate();
        isAlive = false;
        socket.ping();
    }, HEARTBEAT_MS);
    socket.on('close', () => clearInterval(timer));
    return socket;
}

async function inPages() {
    const { chromium } = await import('playwright-core');
    const server = createServer((_, response) => response.setHeader('Content-Type', 'text/html').end('<!doctype html>'));
    await once(server.listen(0, '127.0.0.1'), 'listening');
    const args = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking'];
    const browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args });
    const open = async () => {
        const page = await (await browser.newContext()).newPage(); // a process of its own
        await page.goto(`http://127.0.0.1:${server.address().port}`);
        const begin = ([url, rate]) => {
            window.bytes = 0;
            window.socket = new WebSocket(url);
            socket.binaryType = 'arraybuffer';
            // The page's thread is busy with each message, as a page that draws what it gets.
            socket.onmessage = ({ data }) => {
                const until = performance.now() + (data.byteLength * 1000) / rate;
                while (performance.now() < until);
                bytes += data.byteLength;
            };
            window.ending = new Promise((resolve) => (socket.onclose = ({ code }) => resolve(code)));
            return new Promise((resolve) => (socket.onopen = resolve));
        };
        await page.evaluate(begin, [url, rate]);
        return page;
    };
    const [a, b] = [await open(), await open()];
    const count = (page) => () => page.evaluate(() => bytes - socket.bufferedAmount);
    const send = (seconds) => {
        const body = ([seconds, length]) => {
            const end = Date.now() + seconds * 1000;
            return new Promise((resolve, reject) => {
                ending.then((code) => reject(new Error(`closed with ${code}`)));
                const go = () => {
                    while (socket.bufferedAmount < 2 * length && Date.now() < end) {
                        socket.send(new ArrayBuffer(length));
                        bytes += length;
                    }
                    if (Date.now() < end || socket.bufferedAmount > 0) return setTimeout(go, 20);
                    resolve();
                };
                go();
            });
        };
        return a.evaluate(body, [seconds, MESSAGE]);
    };
    const end = () =>
        b.evaluate(() =>
            ending.then((code) => {
                if (code !== 1000) throw new Error(`closed with ${code}`);
            }),
        );
    const stop = async () => {
        await browser.close();
        server.close();
    };
    const close = () => a.evaluate(() => socket.close(1000));
    return [{ send, count: count(a), close }, { read: end, count: count(b) }, stop];
}
