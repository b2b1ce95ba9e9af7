"""The self-test of .ci/prose: what is a comment, and what counts in it."""

from comments import blocks, test_names

# The name of a file, its text, and the comments in it: line, marker, text.
COMMENTS = [
    ("a.rs", 'let url = "http://host"; // real', [(1, "//", " real")]),
    ("a.rs", r'let quote = "\"// no"; // real', [(1, "//", " real")]),
    ("a.rs", 'let raw = r#"a " // no"#; // real', [(1, "//", " real")]),
    ("a.rs", 'let bytes = (b"//", br##"# // "# "##, c"//"); // real', [(1, "//", " real")]),
    ("a.rs", "let quote = ('\"', '\\'', b'\"', '\\u{22}'); // real", [(1, "//", " real")]),
    ("a.rs", "fn f<'a>(x: &'a str) -> &'a str { x } // real", [(1, "//", " real")]),
    ("a.rs", "let r#type = 1; // real", [(1, "//", " real")]),
    ("a.rs", 'let lines = "one\n// no\n"; // real', [(3, "//", " real")]),
    ("a.rs", "a /* b /* c */ d */ e // real", [(1, "/*", " b /* c */ d "), (1, "//", " real")]),
    ("a.rs", "//! a\n//! b\n\n/// c\n// d", [(1, "//!", " a"), (2, "//!", " b"), (4, "///", " c"), (5, "//", " d")]),
    ("a.rs", "/** a\n * b\n */", [(1, "/**", " a"), (2, "/**", " b"), (3, "/**", " ")]),
    ("a.mjs", "const url = 'http://host', half = 4 / 2; // real", [(1, "//", " real")]),
    ("a.mjs", "const url = /https?:\\/\\/[/]/.test('//'); // real", [(1, "//", " real")]),
    ("a.mjs", "const url = `http://${host /* in */ + `//${{}}`}//`; // real", [(1, "/*", " in "), (1, "//", " real")]),
    ("a.cpp", "auto raw = R\"x(\")\" // no)x\"; int n = 1'000; // real", [(1, "//", " real")]),
    ("a.html", "<p>// no</p><!-- a -->\n<script>\n'//'; // b\n</script>", [(1, "<!--", " a "), (3, "//", " b")]),
    ("a.py", "#!/usr/bin/env python3\nx = '#'  # real", [(2, "#", " real")]),
    ("a.py", 'def f():\n    """Says # a.\n\n    And b."""', [(2, '"""', "Says # a."), (3, '"""', ""), (4, '"""', "And b.")]),
    ("run", "#!/usr/bin/env bash\necho $# ${#a} ${a#b} ${a##*/} 'it # no' a#b # real", [(2, "#", " real")]),
    ("run", '#!/bin/sh\necho "a # $(echo b # c\n) # d" # e', [(2, "#", " c"), (3, "#", " e")]),
    ("a.bash", 'echo $((16#ff)) $((1 << (2))) "${a:-it\'s}" # real', [(1, "#", " real")]),
    ("a.bash", "cat <<END <<-'MORE' # a\n# no\nEND\n# no\n\tMORE\n# b", [(1, "#", " a"), (6, "#", " b")]),
    ("a.bash", "a=$(case $b in # c\n x) echo d # e\n ;; esac) # f", [(1, "#", " c"), (2, "#", " e"), (3, "#", " f")]),
    ("a.bash", "grep '#' <<<\"# no\" \\# $'\\'#' # real", [(1, "#", " real")]),
    ("a.toml", "a = '#' # b\nc = \"\"\"\n# d\n\"\"\" # e", [(1, "#", " b"), (4, "#", " e")]),
    ("a.yml", "a: it's # b\nc: |\n  # no\nd: 'e # f' # g\nh: i#j", [(1, "#", " b"), (4, "#", " g")]),
    ("nginx.conf", "log_format a '# no'; # real", [(1, "#", " real")]),
    ("Dockerfile", "# real\nRUN echo # no", [(1, "#", " real")]),
    ("a.patch", "Real.\n\ndiff --git a/b b/b\n+// no", [(1, "patch", "Real."), (2, "patch", ""), (3, "patch", "")]),
    ("a.md", "A\n# b", [(1, "markdown", "A"), (2, "markdown", "# b")]),
    ("fuzz/seeds/x", "# no", []),
    ("a.unknown", "# no", None),
]

# The text of a Markdown file, how many words of it count, and its pronouns with their lines.
WORDS = [
    ("One two-three it's 4.", 4, []),
    ("Who\nwaits? NOBODY's, whose.", 4, [(1, "who"), (2, "nobody's"), (2, "whose")]),
    ("Whole, nobodyish, whosoever.", 3, []),
    ("Run `who` and ``who ` whom``.", 2, []),
    ("A `span\nwho` ends here, `who does not\n\nwho` neither", 8, [(2, "who"), (4, "who")]),
    ('It says "nobody\nwaits", who 3" long.', 4, [(2, "who")]),
    ("“Who” [there](https://who.example/who) https://who.example", 1, []),
    ("a\n```sh\nwho\n```\nb\n~~~\nwhom\n~~~", 2, []),
    ("```\nwho\n````\nwho\n", 1, [(4, "who")]),
    ("- a `b\n- who` c\n", 4, [(2, "who")]),
    ("who_waits", 2, [(1, "who")]),
]

# The text of a Rust file, and the names of its tests.
NAMES = [
    ("#[test]\nfn who_waits() {}\nfn who_helps() {}", [(2, "who_waits")]),
    ("#[test]\n#[ignore = \"} x\"] // }\nasync fn a() {}", [(3, "a")]),
    ("#[smol_potat::test]\npub fn a() {}\n#[cfg(test)]\nmod b { fn c() {} }", [(2, "a")]),
    ('const A: &str = "#[test] fn who() {}"; // #[test] fn who() {}', []),
]

# The text of a Rust file, and the lines and lengths of first lines that are too long.
FIRST_LINES = [
    ("/// " + "a" * 100 + "\n/// " + "b" * 120, []),
    ("fn a() {}\n\n    /// " + "a" * 101, [(3, 101)]),
    ("//! " + "a" * 101 + "\n// " + "a" * 120, [(1, 101)]),
    ('const A: &str = "/// ' + "a" * 101 + '";', []),
]


def run(file):
    """Whether anything is wrong; `file` is what counts."""
    failures = 0

    def expect(text, found, wanted):
        nonlocal failures
        if found != wanted:
            failures += 1
            print(f"FAIL {text!r}: {found} instead of {wanted}")

    for path, text, wanted in COMMENTS:
        found = blocks(path, text)
        expect(text, found and [(line, block.marker, part) for block in found for line, part in block.lines], wanted)
    for text, words, wanted in WORDS:
        found = file("a.md", text)
        expect(text, (found.words, found.pronouns), (words, wanted))
    for text, wanted in NAMES:
        expect(text, list(test_names(text)), wanted)
    for text, wanted in FIRST_LINES:
        expect(text, file("a.rs", text).long_lines, wanted)
    cases = len(COMMENTS) + len(WORDS) + len(NAMES) + len(FIRST_LINES)
    print(f"{cases} cases, {failures} failed")
    return failures > 0


