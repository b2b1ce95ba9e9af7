// Which relay of a list a pair code belongs to: rendezvous hashing, as docs/scaling.md specifies it. For browsers (in a secure
// context, as for any page with `crypto.subtle`), Node, Deno and Bun.

/** The relays in the order in which a client with this code tries them. */
export async function order(relays, code) {
    const score = async (relay) => {
        const bytes = new TextEncoder().encode(`${relay}\0${code}`);
        const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
        return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
    };
    const scored = await Promise.all(relays.map(async (relay) => ({ relay, score: await score(relay) })));
    return scored.sort((one, other) => (one.score < other.score ? 1 : -1)).map(({ relay }) => relay);
}
