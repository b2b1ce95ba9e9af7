//! The table of conformance cases: a client's bytes, within RFC 6455 or against it, and their outcome.
//!
//! The groups are those of the Autobahn|Testsuite, adapted to a relay: binary messages go to the peer, text is checked
//! and dropped.

/// A row of the table.
#[derive(Debug)]
pub(crate) struct Case {
    /// The group, and the number in the group.
    pub(crate) id: String,
    /// The section of RFC 6455 with the rule.
    pub(crate) section: &'static str,
    pub(crate) title: String,
    /// The message limit of the relay, in bytes.
    pub(crate) limit: Option<u64>,
    /// The bytes that the client sends, each piece in a write of its own.
    pub(crate) sent: Vec<Vec<u8>>,
    /// The messages that the peer receives.
    pub(crate) messages: Vec<Vec<u8>>,
    /// The pongs that the client receives.
    pub(crate) pongs: Vec<Vec<u8>>,
    pub(crate) end: End,
}

/// The end of the connection for the client, and so for its peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The connection goes on: a message and a ping with [`SENTINEL`] are processed.
    Open,
    /// The client closes and gets its code back; the peer gets 1000.
    Closed(Option<u16>),
    /// The client is closed with this code and reason; the peer gets 1011.
    Refused(u16, &'static str),
}

/// The message and ping that a client sends last, to show that the connection goes on.
pub(crate) const SENTINEL: &[u8] = b"still there";

const CONTINUATION: u8 = 0x0;
const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xA;
const FIN: u8 = 0x80;

/// The message limit of the cases that have one, in bytes.
pub(crate) const LIMIT: u64 = 1000;

const KEY: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];

/// A frame with this masking key and first byte.
fn frame_with(key: [u8; 4], first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        length @ 0..=125 => frame.push(0x80 | length as u8),
        length @ 126..=0xFFFF => frame.extend([&[0xFE], &(length as u16).to_be_bytes()[..]].concat()),
        length => frame.extend([&[0xFF], &(length as u64).to_be_bytes()[..]].concat()),
    }
    frame.extend(key);
    frame.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
    frame
}

fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    frame_with(KEY, first, payload)
}

fn binary(payload: &[u8]) -> Vec<u8> {
    frame(FIN | BINARY, payload)
}

fn text(payload: &[u8]) -> Vec<u8> {
    frame(FIN | TEXT, payload)
}

fn ping(payload: &[u8]) -> Vec<u8> {
    frame(FIN | PING, payload)
}

fn close(code: u16, reason: &[u8]) -> Vec<u8> {
    frame(FIN | CLOSE, &[&code.to_be_bytes(), reason].concat())
}

/// A message in fragments of these lengths, and its rest in a last fragment.
fn fragments(opcode: u8, payload: &[u8], lengths: impl IntoIterator<Item = usize>) -> Vec<Vec<u8>> {
    let (mut frames, mut rest, mut opcode) = (Vec::new(), payload, opcode);
    for length in lengths {
        let (part, more) = rest.split_at(length);
        frames.push(frame(opcode, part));
        (rest, opcode) = (more, CONTINUATION);
    }
    frames.push(frame(FIN | opcode, rest));
    frames
}

/// Bytes with a long period.
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 7 + at / 251) as u8).collect()
}

/// A builder of a row.
struct Row<'t> {
    table: &'t mut Table,
    section: &'static str,
    title: String,
    limit: Option<u64>,
    messages: Vec<Vec<u8>>,
    pongs: Vec<Vec<u8>>,
}

impl Row<'_> {
    fn limited(mut self) -> Self {
        self.limit = Some(LIMIT);
        self
    }

    fn message(mut self, message: &[u8]) -> Self {
        self.messages.push(message.to_vec());
        self
    }

    fn pong(mut self, data: &[u8]) -> Self {
        self.pongs.push(data.to_vec());
        self
    }

    /// Ends the row with a client that sends these pieces and goes on.
    fn goes_on(mut self, mut sent: Vec<Vec<u8>>) {
        sent.extend([binary(SENTINEL), ping(SENTINEL)]);
        self.messages.push(SENTINEL.to_vec());
        self.pongs.push(SENTINEL.to_vec());
        self.ends(sent, End::Open);
    }

    fn closes(self, code: Option<u16>, sent: Vec<Vec<u8>>) {
        self.ends(sent, End::Closed(code));
    }

    fn gets_refused(self, code: u16, reason: &'static str, sent: Vec<Vec<u8>>) {
        self.ends(sent, End::Refused(code, reason));
    }

    fn ends(self, sent: Vec<Vec<u8>>, end: End) {
        let Self { table, section, title, limit, messages, pongs } = self;
        table.number += 1;
        let id = format!("{}.{}", table.group, table.number);
        table.cases.push(Case { id, section, title, limit, sent, messages, pongs, end });
    }
}

#[derive(Default)]
struct Table {
    group: usize,
    number: usize,
    cases: Vec<Case>,
}

impl Table {
    fn group(&mut self, group: usize) {
        (self.group, self.number) = (group, 0);
    }

    fn row(&mut self, section: &'static str, title: impl Into<String>) -> Row<'_> {
        Row { table: self, section, title: title.into(), limit: None, messages: vec![], pongs: vec![] }
    }
}

/// The rows of the table.
pub(crate) fn cases() -> Vec<Case> {
    let mut table = Table::default();
    framing(&mut table);
    pings_and_pongs(&mut table);
    reserved_bits(&mut table);
    opcodes(&mut table);
    fragmentation(&mut table);
    utf8(&mut table);
    closing(&mut table);
    masking(&mut table);
    limits(&mut table);
    table.cases
}

/// Cuts bytes into two pieces.
fn cut(bytes: &[u8], at: usize) -> Vec<Vec<u8>> {
    let (begin, end) = bytes.split_at(at);
    vec![begin.to_vec(), end.to_vec()]
}

/// Cuts bytes into pieces of one byte.
fn chopped(bytes: &[u8]) -> Vec<Vec<u8>> {
    bytes.iter().map(|byte| vec![*byte]).collect()
}

fn framing(table: &mut Table) {
    table.group(1);
    for length in [0, 1, 2, 124, 125, 126, 127, 128, 129, 1000, 65_534, 65_535, 65_536, 65_537, 131_072] {
        let payload = pattern(length);
        table.row("5.2", format!("{length} bytes")).message(&payload).goes_on(vec![binary(&payload)]);
        let twice = [binary(&payload), binary(&payload)].concat();
        table
            .row("5.2", format!("{length} bytes, twice at once"))
            .message(&payload)
            .message(&payload)
            .goes_on(vec![twice]);
        table.row("5.6", format!("{length} bytes of text")).goes_on(vec![text(&vec![b'*'; length])]);
        if length > 1 {
            let sent = fragments(BINARY, &payload, [length / 2]);
            table.row("5.4", format!("{length} bytes in two halves")).message(&payload).goes_on(sent);
        }
    }
    for length in [0, 1, 125, 126, 127, 200] {
        let payload = pattern(length);
        let sent = chopped(&binary(&payload));
        table.row("5.2", format!("{length} bytes, each byte by itself")).message(&payload).goes_on(sent);
    }
    for (length, header) in [(125, 6), (126, 8), (65_536, 14)] {
        let payload = pattern(length);
        for at in 1..=header {
            let title = format!("{length} bytes, cut behind byte {at} of the header");
            table.row("5.2", title).message(&payload).goes_on(cut(&binary(&payload), at));
        }
    }
}

fn pings_and_pongs(table: &mut Table) {
    table.group(2);
    for length in [0, 1, 5, 124, 125] {
        let data = pattern(length);
        table.row("5.5.2", format!("a ping with {length} bytes")).pong(&data).goes_on(vec![ping(&data)]);
        let sent = chopped(&ping(&data));
        table.row("5.5.2", format!("a ping with {length} bytes, each by itself")).pong(&data).goes_on(sent);
        let unsolicited = frame(FIN | PONG, &data);
        table.row("5.5.3", format!("an unsolicited pong with {length} bytes")).goes_on(vec![unsolicited]);
    }
    for length in [126, 127, 65_536] {
        let data = pattern(length);
        for (opcode, name) in [(PING, "ping"), (PONG, "pong")] {
            let sent = vec![frame(FIN | opcode, &data)];
            let row = table.row("5.5", format!("a {name} with {length} bytes"));
            row.gets_refused(1002, "control frame over 125 bytes", sent);
        }
    }
    let mut row = table.row("5.5.2", "ten pings, answered in their order");
    for number in 0..10 {
        row = row.pong(&[number]);
    }
    row.goes_on((0..10).map(|number| ping(&[number])).collect());
    let mut row = table.row("5.5.2", "ten pings at once");
    for number in 0..10 {
        row = row.pong(&[number]);
    }
    row.goes_on(vec![(0..10).flat_map(|number| ping(&[number])).collect()]);
    let sent = vec![frame(FIN | PONG, b"no"), ping(b"yes"), frame(FIN | PONG, b"no")];
    table.row("5.5.3", "pongs around a ping").pong(b"yes").goes_on(sent);
}

fn reserved_bits(table: &mut Table) {
    table.group(3);
    for bits in 1..8_u8 {
        for (opcode, name) in [(TEXT, "text"), (BINARY, "binary"), (PING, "ping"), (PONG, "pong"), (CLOSE, "close")] {
            let wrong = frame(FIN | bits << 4 | opcode, b"");
            let row = table.row("5.2", format!("reserved bits {bits:03b} of a {name} frame"));
            row.message(b"before").pong(b"before").gets_refused(
                1002,
                "reserved bit set",
                vec![binary(b"before"), ping(b"before"), wrong],
            );
        }
        let sent = vec![frame(BINARY, b"begin"), frame(FIN | bits << 4 | CONTINUATION, b"end")];
        let row = table.row("5.2", format!("reserved bits {bits:03b} of a continuation"));
        row.gets_refused(1002, "reserved bit set", sent);
    }
}

fn opcodes(table: &mut Table) {
    table.group(4);
    for opcode in (3..=7).chain(11..=15) {
        for payload in [&b""[..], b"something"] {
            let title = format!("opcode {opcode:#x} with {} bytes", payload.len());
            table.row("5.2", title).gets_refused(1002, "reserved opcode", vec![frame(FIN | opcode, payload)]);
        }
        let sent = vec![[binary(b"before"), frame(FIN | opcode, b""), ping(b"after")].concat()];
        let row = table.row("5.2", format!("opcode {opcode:#x} between others, at once"));
        row.message(b"before").gets_refused(1002, "reserved opcode", sent);
        let sent = vec![frame(BINARY, b"begin"), frame(FIN | opcode, b"")];
        let row = table.row("5.2", format!("opcode {opcode:#x} within a message"));
        row.gets_refused(1002, "reserved opcode", sent);
    }
}

fn fragmentation(table: &mut Table) {
    table.group(5);
    let payload = pattern(100);
    for (opcode, name) in [(PING, "ping"), (PONG, "pong"), (CLOSE, "close")] {
        let row = table.row("5.5", format!("a {name} frame in fragments"));
        row.gets_refused(1002, "fragmented control frame", vec![frame(opcode, b""), frame(FIN | CONTINUATION, b"")]);
    }
    for (name, whole) in [("at once", true), ("one by one", false)] {
        let joined = |frames: Vec<Vec<u8>>| if whole { vec![frames.concat()] } else { frames };
        let sent = joined(fragments(BINARY, &payload, [1; 99]));
        table.row("5.4", format!("a hundred fragments {name}")).message(&payload).goes_on(sent);
        let sent = joined(fragments(BINARY, &payload, [0, 0, 50, 0, 50]));
        table.row("5.4", format!("empty fragments {name}")).message(&payload).goes_on(sent);
        table
            .row("5.4", format!("a message of empty fragments {name}"))
            .message(b"")
            .goes_on(joined(fragments(BINARY, b"", [0; 9])));
        let mut frames = fragments(BINARY, &payload, [10; 9]);
        for at in (1..10).rev() {
            frames.insert(at, ping(&[at as u8]));
        }
        let mut row = table.row("5.4", format!("pings between fragments {name}")).message(&payload);
        for at in 1..10 {
            row = row.pong(&[at]);
        }
        row.goes_on(joined(frames));
        let frames = joined(vec![frame(BINARY, b"a"), frame(FIN | PONG, b""), frame(FIN | CONTINUATION, b"b")]);
        table.row("5.4", format!("a pong between fragments {name}")).message(b"ab").goes_on(frames);
        for (begun, new) in [(BINARY, BINARY), (BINARY, TEXT), (TEXT, BINARY), (TEXT, TEXT)] {
            let sent = joined(vec![frame(begun, b"a"), frame(FIN | new, b"b")]);
            let row = table.row("5.4", format!("opcode {new} within a message of opcode {begun}, {name}"));
            row.gets_refused(1002, "continuation expected", sent);
        }
        for first in [CONTINUATION, FIN | CONTINUATION] {
            let title = format!("nothing to continue, first byte {first:#x}, {name}");
            let sent = joined(vec![binary(b"whole"), frame(first, b"more")]);
            table.row("5.4", title).message(b"whole").gets_refused(1002, "nothing to continue", sent);
            let title = format!("nothing to continue behind text, first byte {first:#x}, {name}");
            let sent = joined(vec![text(b"whole"), frame(first, b"more")]);
            table.row("5.4", title).gets_refused(1002, "nothing to continue", sent);
        }
        let sent = joined([fragments(TEXT, b"text", [1, 1]), fragments(BINARY, b"binary", [2, 2])].concat());
        table.row("5.4", format!("text and then binary in fragments {name}")).message(b"binary").goes_on(sent);
    }
}

fn utf8(table: &mut Table) {
    table.group(6);
    let valid: [(&str, &[u8]); 12] = [
        ("nothing", b""),
        ("one byte", b"\x7F"),
        ("NUL", b"\0"),
        ("the first of two bytes", b"\xC2\x80"),
        ("the last of two bytes", b"\xDF\xBF"),
        ("the first of three bytes", b"\xE0\xA0\x80"),
        ("the last before the surrogates", b"\xED\x9F\xBF"),
        ("the first behind the surrogates", b"\xEE\x80\x80"),
        ("the last of three bytes", b"\xEF\xBF\xBF"),
        ("the first of four bytes", b"\xF0\x90\x80\x80"),
        ("the last of four bytes", b"\xF4\x8F\xBF\xBF"),
        ("all together", "aé€🐋".as_bytes()),
    ];
    for (name, bytes) in valid {
        table.row("8.1", format!("text: {name}")).goes_on(vec![text(bytes)]);
        if bytes.len() > 1 {
            let sent = fragments(TEXT, bytes, vec![1; bytes.len() - 1]);
            table.row("8.1", format!("text: {name}, each byte a fragment")).goes_on(sent);
            table.row("8.1", format!("text: {name}, each byte by itself")).goes_on(chopped(&text(bytes)));
        }
        if bytes.len() < 123 {
            let sent = vec![close(1000, bytes)];
            table.row("5.5.1", format!("a reason: {name}")).closes(Some(1000), sent);
        }
    }
    let invalid: [(&str, &[u8]); 14] = [
        ("a continuation alone", b"\x80"),
        ("0xFE", b"\xFE"),
        ("0xFF", b"\xFF"),
        ("two bytes for one", b"\xC0\xAF"),
        ("0xC1", b"\xC1\xBF"),
        ("three bytes for two", b"\xE0\x80\xAF"),
        ("four bytes for three", b"\xF0\x80\x80\xAF"),
        ("the first surrogate", b"\xED\xA0\x80"),
        ("the last surrogate", b"\xED\xBF\xBF"),
        ("beyond the last", b"\xF4\x90\x80\x80"),
        ("five bytes", b"\xF8\x88\x80\x80\x80"),
        ("cut after one of two", b"ok\xC3"),
        ("cut after two of three", b"ok\xE2\x82"),
        ("cut after three of four", b"ok\xF0\x9F\x90"),
    ];
    for (name, bytes) in invalid {
        let refuse = |row: Row<'_>, sent| row.gets_refused(1007, "invalid UTF-8", sent);
        refuse(table.row("8.1", format!("text: {name}")), vec![text(bytes)]);
        refuse(table.row("8.1", format!("a reason: {name}")), vec![close(1000, bytes)]);
        if bytes.len() > 1 {
            let sent = fragments(TEXT, bytes, vec![1; bytes.len() - 1]);
            refuse(table.row("8.1", format!("text: {name}, each byte a fragment")), sent);
        }
        let sent = vec![binary(b"before"), text(&[b"long enough: ", bytes].concat()), binary(b"after")];
        refuse(table.row("8.1", format!("text: {name}, behind a message")).message(b"before"), sent);
        // The relay does not check binary messages.
        table.row("5.6", format!("binary: {name}")).message(bytes).goes_on(vec![binary(bytes)]);
    }
    // Invalid text is refused before the frame is complete.
    let begun = [&text(&pattern(100))[..6], &[0xFF ^ KEY[0], 0xFF ^ KEY[1]]].concat();
    table.row("8.1", "text that can not become valid, unfinished").gets_refused(1007, "invalid UTF-8", vec![begun]);
}

fn closing(table: &mut Table) {
    table.group(7);
    table.row("5.5.1", "a close frame with nothing in it").closes(None, vec![frame(FIN | CLOSE, b"")]);
    let row = table.row("5.5.1", "a close frame with half a code");
    row.gets_refused(1002, "truncated status code", vec![frame(FIN | CLOSE, b"\x03")]);
    for code in (1000..=1003).chain(1007..=1014).chain([3000, 3999, 4000, 4999]) {
        table.row("7.4", format!("status code {code}")).closes(Some(code), vec![close(code, b"")]);
        let sent = vec![close(code, b"because")];
        table.row("7.4", format!("status code {code} with a reason")).closes(Some(code), sent);
    }
    for code in [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 1999, 2000, 2999, 5000, 65_535] {
        let row = table.row("7.4", format!("status code {code}"));
        row.gets_refused(1002, "invalid status code", vec![close(code, b"")]);
    }
    let sent = vec![close(1000, &[b'r'; 123])];
    table.row("5.5", "a reason of 123 bytes").closes(Some(1000), sent);
    let row = table.row("5.5", "a reason of 124 bytes");
    row.gets_refused(1002, "control frame over 125 bytes", vec![close(1000, &[b'r'; 124])]);
    for (name, behind) in [
        ("a message", binary(b"late")),
        ("a ping", ping(b"late")),
        ("another close frame", close(4000, b"")),
        ("a violation", frame(0xFF, b"")),
        ("garbage", vec![0xFF; 100]),
    ] {
        let sent = vec![[binary(b"before"), close(3000, b""), behind.clone()].concat()];
        let row = table.row("5.5.1", format!("{name} behind a close frame, at once"));
        row.message(b"before").closes(Some(3000), sent);
        let sent = vec![binary(b"before"), close(3000, b""), behind];
        table.row("5.5.1", format!("{name} behind a close frame")).message(b"before").closes(Some(3000), sent);
    }
    let payload = pattern(200_000);
    let sent = vec![[binary(&payload), close(1001, b"")].concat()];
    table.row("5.5.1", "a close frame right behind a long message").message(&payload).closes(Some(1001), sent);
    let sent = vec![ping(b"first"), close(1000, b"")];
    table.row("5.5.2", "a ping before a close frame").pong(b"first").closes(Some(1000), sent);
    table.row("5.5.1", "each byte by itself").closes(Some(4321), chopped(&close(4321, b"bye")));
}

fn masking(table: &mut Table) {
    table.group(8);
    for first in [FIN | TEXT, FIN | BINARY, FIN | PING, FIN | PONG, FIN | CLOSE, BINARY] {
        let row = table.row("5.1", format!("no mask, first byte {first:#x}"));
        row.gets_refused(1002, "unmasked frame", vec![vec![first, 0]]);
        let row = table.row("5.1", format!("no mask behind a message, first byte {first:#x}")).message(b"before");
        row.gets_refused(1002, "unmasked frame", vec![binary(b"before"), vec![first, 2, 3, 0xE8]]);
    }
    let sent = vec![frame(BINARY, b"begin"), vec![FIN | CONTINUATION, 1, b'x']];
    table.row("5.1", "no mask on a continuation").gets_refused(1002, "unmasked frame", sent);
    for key in [[0; 4], [0xFF; 4], [1, 0, 0, 0], [0, 0, 0, 1], [0x80, 0x81, 0x88, 0x89]] {
        let payload = pattern(1001);
        let sent = vec![frame_with(key, FIN | BINARY, &payload)];
        table.row("5.3", format!("key {key:02x?}")).message(&payload).goes_on(sent);
    }
    let payload = pattern(40);
    for shift in 0..8 {
        // Every alignment in the buffer, and every phase of the key.
        let sent = [binary(&payload[..shift]), binary(&payload)].concat();
        let sent = cut(&sent, sent.len() - 20 - shift);
        let row = table.row("5.3", format!("the key goes on in the next read, {shift}"));
        row.message(&payload[..shift]).message(&payload).goes_on(sent);
    }
}

fn limits(table: &mut Table) {
    table.group(9);
    let limit = LIMIT as usize;
    let too_big = |row: Row<'_>, sent| row.limited().gets_refused(1009, "message too big", sent);
    let longest = pattern(limit);
    table.row("7.4.1", "exactly the limit").limited().message(&longest).goes_on(vec![binary(&longest)]);
    let sent = fragments(BINARY, &longest, [100; 9]);
    table.row("7.4.1", "exactly the limit in fragments").limited().message(&longest).goes_on(sent);
    let sent = vec![binary(&longest), binary(&longest)];
    table.row("7.4.1", "exactly the limit twice").limited().message(&longest).message(&longest).goes_on(sent);
    table.row("7.4.1", "text of exactly the limit").limited().goes_on(vec![text(&vec![b'x'; limit])]);
    too_big(table.row("7.4.1", "one above"), vec![binary(&pattern(limit + 1))]);
    too_big(table.row("7.4.1", "text, one above"), vec![text(&vec![b'x'; limit + 1])]);
    too_big(table.row("7.4.1", "one above, only the header"), vec![binary(&pattern(limit + 1))[..8].to_vec()]);
    too_big(table.row("7.4.1", "one above in fragments"), fragments(BINARY, &pattern(limit + 1), [limit]));
    too_big(table.row("7.4.1", "text, one above in fragments"), fragments(TEXT, &vec![b'x'; limit + 1], [limit]));
    let sent = vec![binary(b"before"), binary(&pattern(limit + 1))];
    too_big(table.row("7.4.1", "one above, behind a message").message(b"before"), sent);
    let header = |short: u8, length: &[u8]| vec![[&[FIN | BINARY, 0x80 | short], length, &KEY, &[0; 130]].concat()];
    too_big(table.row("7.4.1", "the greatest length"), header(127, &(u64::MAX >> 1).to_be_bytes()));
    for length in [0_u16, 1, 125] {
        let row = table.row("5.2", format!("{length} in 16 bits"));
        row.gets_refused(1002, "length not minimal", header(126, &length.to_be_bytes()));
    }
    for length in [0_u64, 1, 125, 126, 65_535] {
        let row = table.row("5.2", format!("{length} in 64 bits"));
        row.gets_refused(1002, "length not minimal", header(127, &length.to_be_bytes()));
    }
    for length in [1_u64 << 63, u64::MAX] {
        let row = table.row("5.2", format!("{length}: more than 63 bits"));
        row.gets_refused(1002, "length over 63 bits", header(127, &length.to_be_bytes()));
    }
    for length in [1 << 20, 4 << 20] {
        let payload = pattern(length);
        table.row("5.2", format!("{length} bytes in a frame")).message(&payload).goes_on(vec![binary(&payload)]);
        for size in [1000, 65_536, 65_537] {
            let sent = vec![fragments(BINARY, &payload, vec![size; (length - 1) / size]).concat()];
            table.row("5.4", format!("{length} bytes in fragments of {size}")).message(&payload).goes_on(sent);
        }
    }
}
