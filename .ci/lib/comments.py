"""Finds the comments of a source file, exactly: a comment marker in a string is no comment.

`blocks(path, text)` is the entry. A block is one comment: adjacent whole-line comments with the same marker are one."""

import ast
import bisect
import fnmatch
import io
import re
import tokenize
from dataclasses import dataclass


@dataclass
class Block:
    """`lines` holds the number and the text of each line, without the marker."""

    marker: str
    lines: list


def blocks(path, text):
    """The blocks of a file, or None for a kind of file that is unknown."""
    name = path.rsplit("/", 1)[-1]
    for pattern, find in KINDS:
        if fnmatch.fnmatch(path if "/" in pattern else name, pattern):
            return find(text)
    for interpreter, find in INTERPRETERS.items():
        if re.match(rf"#!.*\b{interpreter}", text):
            return find(text)
    return None


def test_names(text):
    """The line and the name of each function of a Rust file that has a test attribute."""
    code = list(text)
    for start, end in _c_like(text, RUST)[1]:
        code[start:end] = re.sub(r"[^\n]", " ", text[start:end])
    code = "".join(code)
    for function in re.finditer(r"\bfn\s+(?:r#)?(\w+)", code):
        attributes = re.split(r"[;{}]", code[: function.start()])[-1]
        if re.search(r"#\[\s*(?:\w+\s*::\s*)*test\b", attributes):
            yield code.count("\n", 0, function.start(1)) + 1, function[1]


# C-like languages. Each pattern takes one token; the named groups are those that matter.

RUST = re.compile(
    r"""(?P<line>//[^\n]*)|(?P<block>/\*)|(?P<raw>[bc]?r(?P<hashes>\#*)")
    |(?P<string>[bc]?"(?:\\.|[^"\\])*"|b?'(?:\\u\{[^}]*\}|\\x..|\\.|[^'\\\n])')
    |'\w+|\w+|\s+|.""",
    re.S | re.X,
)
CPP = re.compile(
    r"""(?P<line>//[^\n]*)|(?P<block>/\*)|(?P<raw>(?:u8|[uUL])?R"(?P<hashes>[^\s()\\]*)\()
    |(?P<string>"(?:\\.|[^"\\])*"|(?<![0-9a-fA-F])'(?:\\.|[^'\\])*')
    |\w+|\s+|.""",
    re.S | re.X,
)
JAVASCRIPT = re.compile(
    r"""(?P<line>//[^\n]*)|(?P<block>/\*)|(?P<template>`)|(?P<regex>/(?:\\.|\[(?:\\.|[^\]\\\n])*\]|[^/\\\n\[])+/)
    |(?P<string>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')
    |[\w$]+|\s+|.""",
    re.S | re.X,
)
# A slash behind one of these begins a regular expression, and divides behind anything else.
BEFORE_REGEX = set("(,=:[!&|?{};+-*%~^<>") | {"return", "typeof", "case", "in", "of", "delete", "void", "throw", ""}


def _c_like(text, tokens):
    """The comments, and the ranges of comments and strings."""
    found, ranges, braces, previous, at = [], [], [], "", 0
    while at < len(text):
        token = tokens.match(text, at)
        groups = token.groupdict()
        end = token.end()
        if groups.get("regex") and previous not in BEFORE_REGEX:
            end = at + 1
            previous = "/"
        elif groups["line"]:
            found.append((at, text[at:end]))
            ranges.append((at, end))
        elif groups["block"]:
            end = _block_comment_end(text, at, nests=tokens is RUST)
            found.append((at, text[at:end]))
            ranges.append((at, end))
        elif groups.get("raw"):
            closing = (")" if tokens is CPP else "") + ('"' if tokens is RUST else "") + groups["hashes"]
            closing += '"' if tokens is CPP else ""
            end = text.find(closing, end)
            end = len(text) if end < 0 else end + len(closing)
            ranges.append((at, end))
            previous = '"'
        elif groups.get("template") or (tokens is JAVASCRIPT and text[at] == "}" and braces and braces[-1] == 0):
            # A template literal goes on behind each `${...}` in it.
            if text[at] == "}":
                braces.pop()
            part = re.compile(r"(?:\\.|\$(?!\{)|[^`\\$])*(`|\$\{|\Z)", re.S).match(text, at + 1)
            if part[1] == "${":
                braces.append(0)
            end = part.end()
            ranges.append((at, end))
            previous = '"' if part[1] == "`" else "{"
        else:
            if groups["string"]:
                ranges.append((at, end))
            if braces and token[0] in ("{", "}"):
                braces[-1] += 1 if token[0] == "{" else -1
            if not token[0].isspace():
                previous = '"' if groups["string"] or groups.get("regex") else token[0]
        at = end
    return found, ranges


def _block_comment_end(text, at, nests):
    depth, at = 1, at + 2
    for mark in re.compile(r"/\*|\*/").finditer(text, at):
        if mark.start() < at:
            continue
        at = mark.end()
        depth += -1 if mark[0] == "*/" else (1 if nests else 0)
        if depth == 0:
            return at
    return len(text)


def _c_blocks(tokens):
    markers = re.compile(r"///(?!/)|//!|//+|/\*\*(?![*/])|/\*!|/\*")

    def find(text):
        comments = []
        for at, comment in _c_like(text, tokens)[0]:
            marker = markers.match(comment)[0]
            body = comment[len(marker) :]
            if marker.startswith("/*"):
                body = re.sub(r"(?m)^[ \t]*\*(?!/)", "", body.removesuffix("*/"))
            comments.append((at, marker, body))
        return _joined(text, comments)

    return find


def _joined(text, comments):
    """Blocks out of comments, each of which is an offset, a marker and a text of one or more lines."""
    starts = [0, *(newline.end() for newline in re.finditer("\n", text))]
    found, last = [], None
    for at, marker, body in comments:
        line = bisect.bisect_right(starts, at)
        alone = not text[starts[line - 1] : at].strip()
        lines = [(line + nth, part) for nth, part in enumerate(body.split("\n"))]
        if alone and len(lines) == 1 and last == (line - 1, marker):
            found[-1].lines += lines
        else:
            found.append(Block(marker, lines))
        last = (line, marker) if alone else None
    return found


def _html(text):
    comments = [(comment.start(), "<!--", comment[1]) for comment in re.finditer(r"<!--(.*?)-->", text, re.S)]
    scripts = list(re.sub(r"[^\n]", " ", text))
    for script in re.finditer(r"<script[^>]*>(.*?)</script>", text, re.S):
        scripts[script.start(1) : script.end(1)] = script[1]
    return _joined(text, comments) + _c_blocks(JAVASCRIPT)("".join(scripts))


# Languages with `#`.


def _python(text):
    starts = [0, *(newline.end() for newline in re.finditer("\n", text))]
    comments = [
        (starts[token.start[0] - 1] + token.start[1], "#", token.string[1:])
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type == tokenize.COMMENT and not (token.start == (1, 0) and token.string.startswith("#!"))
    ]
    found = _joined(text, comments)
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, documented) and (text_of := ast.get_docstring(node)):
            first = node.body[0].lineno
            found.append(Block('"""', [(first + nth, line) for nth, line in enumerate(text_of.split("\n"))]))
    return found


def _hashes(pattern):
    """Comments are the matches of the named group; everything else that matches is a string."""
    tokens = re.compile(pattern, re.S | re.M)

    def find(text):
        matches = (match for match in tokens.finditer(text) if match["comment"])
        return _joined(text, [(match.start("comment"), "#", match["comment"][1:]) for match in matches])

    return find


_toml = _hashes(
    r"\"\"\"(?:\\.|[^\\])*?\"\"\"|'''.*?'''|\"(?:\\.|[^\"\\\n])*\"|'[^'\n]*'|(?P<comment>#[^\n]*)"
)
# Strings in one line, and comments at the start of a word.
_configuration = _hashes(r"\"(?:\\.|[^\"\\\n])*\"|'[^'\n]*'|(?<!\S)(?P<comment>#[^\n]*)")
# Only whole lines are comments.
_whole_lines = _hashes(r"^[ \t]*(?P<comment>[#;][^\n]*)")
_yaml_tokens = _hashes(r"(?<![^\s\[{,:])(?:\"(?:\\.|[^\"\\])*\"|'(?:''|[^'])*')|(?<!\S)(?P<comment>#[^\n]*)")


def _yaml(text):
    """Block scalars are blanked first: a `#` in them is text."""
    lines, scalar = [], None
    for line in text.split("\n"):
        indentation = len(line) - len(line.lstrip())
        if scalar is not None and (not line.strip() or indentation > scalar):
            lines.append(" " * len(line))
            continue
        lines.append(line)
        opens = not line.lstrip().startswith("#") and re.search(r"(?:[:\-]|^)[ \t]+[|>][-+\d]*[ \t]*(?:#.*)?$", line)
        scalar = indentation if opens else None
    return _yaml_tokens("\n".join(lines))


HEREDOC = re.compile(r"<<-?[ \t]*(['\"]?)([A-Za-z_]\w*)\1")


def _shell(text):
    comments, stack, heredocs, at, escaped = [], [["code", 0]], [], 0, False

    def push(kind, length):
        stack.append([kind, 0])
        return at + length

    while at < len(text):
        kind, character = stack[-1][0], text[at]
        is_code = kind in ("code", "(", "`")
        begins = not escaped and (at == 0 or text[at - 1] in " \t\n;&|()`")
        escaped = False
        if character == "\\":
            at, escaped = at + 2, True
        elif text.startswith("$((", at):
            at = push("((", 3)
        elif text.startswith(("$(", "${"), at):
            at = push(text[at + 1], 2)
        elif character == '"':
            if kind == '"':
                stack.pop()
                at += 1
            else:
                at = push('"', 1)
        elif character == "`":
            if kind == "`":
                stack.pop()
                at += 1
            else:
                at = push("`", 1)
        elif kind == '"':
            at += 1
        elif kind == "{":
            quoted = character == "'" and stack[-2][0] != '"'
            if character == "}":
                stack.pop()
            at = text.index("'", at + 1) + 1 if quoted else at + 1
        elif kind == "((":
            if text.startswith("))", at) and stack[-1][1] == 0:
                stack.pop()
                at += 1
            stack[-1][1] += {"(": 1, ")": -1}.get(character, 0) if stack[-1][0] == "((" else 0
            at += 1
        elif text.startswith("$'", at):
            at = re.compile(r"\$'(?:\\.|[^'\\])*'", re.S).match(text, at).end()
        elif character == "'":
            at = text.index("'", at + 1) + 1
        elif character == "#" and begins:
            end = text.find("\n", at)
            end = len(text) if end < 0 else end
            if not text.startswith("#!", at) or at > 0:
                comments.append((at, "#", text[at + 1 : end]))
            at = end
        elif heredoc := is_code and not text.startswith("<<<", at) and HEREDOC.match(text, at):
            heredocs.append(heredoc[2])
            at = heredoc.end()
        elif text.startswith("<<<", at):
            at += 3
        elif character == "\n":
            at += 1
            for delimiter in heredocs:
                body = re.compile(rf"(?:.*\n)*?[ \t]*{delimiter}(?=\n|\Z)").match(text, at)
                at = body.end() if body else len(text)
            heredocs = []
        elif begins and text.startswith("((", at):
            at = push("((", 2)
        elif character == "(":
            at = push("(", 1)
        elif character == ")":
            # Within a case, it ends a pattern.
            if kind == "(" and stack[-1][1] == 0:
                stack.pop()
            at += 1
        elif begins and (word := re.compile(r"case\s[^\n]*?\sin\b|esac\b").match(text, at)):
            stack[-1][1] += -1 if word[0] == "esac" else 1
            at = word.end()
        else:
            at += 1
    return _joined(text, comments)


# Files that are prose, and files without any.


def _markdown(text):
    return [Block("markdown", list(enumerate(text.split("\n"), 1)))]


def _patch(text):
    """The description. The rest quotes the source."""
    description = re.split(r"(?m)^(?:diff --git|---) ", text)[0]
    return [Block("patch", list(enumerate(description.split("\n"), 1)))]


def _none(_):
    return []


# By name, or by path if the pattern has a slash. The first match counts.
KINDS = [
    ("fuzz/seeds/*", _none),
    ("*.lock", _none),
    ("*.json", _none),
    ("*.svg", _none),
    ("LICENSE-*", _none),
    # The mark of a package with types. It is empty.
    ("py.typed", _none),
    # proptest writes these.
    ("tests/regressions/*", _none),
    ("*.rs", _c_blocks(RUST)),
    ("*.cpp", _c_blocks(CPP)),
    ("*.js", _c_blocks(JAVASCRIPT)),
    ("*.mjs", _c_blocks(JAVASCRIPT)),
    ("*.ts", _c_blocks(JAVASCRIPT)),
    # Made of clients/demo, which has the comments.
    ("src/http/demo.html", _none),
    ("*.css", _c_blocks(JAVASCRIPT)),
    ("*.html", _html),
    ("*.md", _markdown),
    ("*.patch", _patch),
    ("*.py", _python),
    ("*.sh", _shell),
    ("*.bash", _shell),
    ("*.toml", _toml),
    ("*.yml", _yaml),
    ("*.yaml", _yaml),
    ("*.conf", _configuration),
    ("*.cfg", _configuration),
    ("Caddyfile", _configuration),
    ("Dockerfile", _whole_lines),
    ("*.service", _whole_lines),
    ("*.socket", _whole_lines),
    ("default", _whole_lines),
    ("*.dict", _whole_lines),
    ("*.txt", _whole_lines),
    (".npmrc", _whole_lines),
    (".gitignore", _whole_lines),
    (".dockerignore", _whole_lines),
]
INTERPRETERS = {"bash": _shell, "sh": _shell, "python3": _python}
