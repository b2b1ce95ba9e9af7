// Checks of the page of the operations listener in Chromium. Takes the address of the relay, HOST:PORT; $OPERATIONS is that
// of the listener, and $CHROMIUM the browser. With $SCREENSHOTS, a folder, it leaves pictures there.

import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { chromium } from 'playwright-core';
import { address, assert, check, connect, pair } from './checks.mjs';

const url = `http://${process.env.OPERATIONS}/`;
const axe = await readFile(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM,
    args: ['--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking', '--disable-component-update'],
});
const DESKTOP = { width: 1280, height: 900 };
const PHONE = { width: 375, height: 812 };

/// Opens the page, and returns it once it shows numbers, with what it has asked for and complained about.
async function open(options) {
    const context = await browser.newContext({ viewport: DESKTOP, ...options });
    const page = await context.newPage();
    const [asked, complaints] = [[], []];
    page.on('request', (request) => asked.push(request.url()));
    // A violation of the content security policy is an error on the console.
    page.on('console', (message) => message.type() === 'error' && complaints.push(message.text()));
    page.on('pageerror', (error) => complaints.push(error.message));
    const response = await page.goto(url);
    await page.waitForFunction(() => document.getElementById('state').textContent === 'ready');
    const picture = async (name) =>
        process.env.SCREENSHOTS && (await page.screenshot({ path: `${process.env.SCREENSHOTS}/${name}.png`, fullPage: true }));
    return { page, asked, complaints, response, picture, close: () => context.close() };
}

/// Waits until an element has a text, and returns it.
async function text(page, selector, expected) {
    const pattern = [expected.source, expected.flags];
    await page.waitForFunction(
        ([selector, [source, flags]]) => new RegExp(source, flags).test(document.querySelector(selector)?.textContent ?? ''),
        [selector, pattern],
    );
    return page.textContent(selector);
}

/// Clients of all kinds, so that there is something to show: a pair that talks, one that waits, one refused, one gone.
async function crowd(relay) {
    const [a, b] = await pair(`${relay}-talks`);
    const waiting = await connect(`${relay}-waits`);
    await assert.rejects(connect(`ws://${address}/?pair=`));
    const [leaver, left] = await pair(`${relay}-leaves`);
    leaver.socket.close(1000);
    await left.closed;
    await a.send(Buffer.alloc(500_000));
    await b.next();
    return { a, b, waiting };
}

await check('the page draws what happens, and loads nothing else', async (relay) => {
    await crowd(relay);
    const { page, asked, complaints, response, picture, close } = await open();
    await text(page, '#paired', /^1$/);
    await text(page, '#waiting', /^1 of [\d,]+$/);
    await text(page, '#connections', /^3 of [\d,]+$/);
    await text(page, 'section:has(#pairs) .legend', /pairs 1waiting 1/);
    // The sample behind the crowd is a moment away.
    await text(page, 'section:has(#rejected) .legend', /pair_code \d/);
    await text(page, 'section:has(#closed) .legend', /left \d/);
    assert.ok((await page.locator('#closed rect').count()) > 0);
    assert.match(await page.getAttribute('#pairs path.series', 'd'), /^M.+L/, 'there is a past');
    assert.match(await page.getAttribute('#bytes', 'aria-label'), /^Bytes per second, now: forwarded /);
    await picture('light');
    assert.deepEqual(complaints, []);
    assert.deepEqual(asked.filter((asked) => !asked.startsWith(url) && !asked.startsWith('data:')), []);
    const policy = response.headers()['content-security-policy'];
    assert.match(policy, /default-src 'none'/);
    assert.doesNotMatch(policy, /unsafe|\*|http/);
    await close();
});

await check('the policy lets no other script run', async () => {
    const { page, close } = await open();
    const outcome = await page.evaluate(() => {
        try {
            document.body.append(Object.assign(document.createElement('script'), { text: 'window.ran = true' }));
        } catch (error) {
            return error.name;
        }
        return window.ran ? 'ran' : 'blocked';
    });
    assert.notEqual(outcome, 'ran');
    await close();
});

await check('arrow keys and the pointer read earlier numbers', async (relay) => {
    await crowd(relay);
    const { page, close } = await open();
    for (const chart of ['pairs', 'closed']) {
        await page.focus(`#${chart}`);
        await page.keyboard.press('ArrowLeft');
        await text(page, `section:has(#${chart}) .title span`, /10 s ago$/);
        await page.keyboard.press('Escape');
        await text(page, `section:has(#${chart}) .title span`, /^(now|in 10 minutes)$/);
        const box = await page.locator(`#${chart}`).boundingBox();
        await page.mouse.move(box.x + box.width / 2, box.y + box.height / 2);
        await text(page, `section:has(#${chart}) .title span`, /4 min ago$|5 min ago$/);
        await page.mouse.move(1, 1);
        await text(page, `section:has(#${chart}) .title span`, /^(now|in 10 minutes)$/);
    }
    await close();
});

for (const colorScheme of ['light', 'dark']) {
    await check(`the page is accessible when it is ${colorScheme}`, async (relay) => {
        await crowd(relay);
        const { page, picture, close } = await open({ colorScheme });
        await text(page, 'section:has(#rejected) .legend', /pair_code \d/);
        const ground = await page.evaluate(() => getComputedStyle(document.body).backgroundColor);
        const [red] = ground.match(/\d+/g).map(Number);
        assert.ok(colorScheme === 'dark' ? red < 64 : red > 192, ground);
        await page.evaluate(axe);
        const { violations } = await page.evaluate(() => window.axe.run());
        assert.deepEqual(violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html).join(' ')}`), []);
        await picture(colorScheme === 'dark' ? 'dark' : 'accessible');
        await close();
    });
}

await check('a phone shows all of it, without scrolling to the side', async (relay) => {
    await crowd(relay);
    const { page, picture, close } = await open({ viewport: PHONE, deviceScaleFactor: 2, isMobile: true, hasTouch: true });
    await text(page, 'section:has(#closed) .legend', /left \d/);
    assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), PHONE.width);
    const small = await page.evaluate(() =>
        [...document.querySelectorAll('dt, dd, h2, p, li, footer')].filter((text) => parseFloat(getComputedStyle(text).fontSize) < 12).length);
    assert.equal(small, 0);
    await picture('phone');
    await close();
});

await check('the page says when the relay does not answer, and goes on when it does', async () => {
    const { page, close } = await open();
    await page.route('**/info', (route) => route.abort());
    await text(page, '#state', /^no answer$/);
    await page.unroute('**/info');
    await text(page, '#state', /^ready$/);
    await close();
});

await browser.close();
