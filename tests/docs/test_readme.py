"""Following a README: what runs, where, and what is said when it does not."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tests.acceptance.windows import CLIENT_MISSING, needs_client
from tests.docs import readme
from tests.docs.readme import Block, BlockFailed, follow, sections

STORY = """\
# Tool

Text with `code`.

## Install

<!-- not run: it needs the network -->

```sh
exit 1
```

## Use

<!-- file: app/greeting.py -->
```python
WORD = "hello"
```

1. Then:

   ```sh
   test "$(python -c 'from app.greeting import WORD; print(WORD)')" = hello
   echo said > said.txt
   ```

```python
import sys
from pathlib import Path

assert Path("said.txt").read_text() == "said\\n"
assert sys.prefix != sys.base_prefix
```

```text
exit 1
```

## Elsewhere

~~~~sh
test ! -e said.txt
~~~~
"""


SLOW_TO_BE_READY = """\
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path


class Answer(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if Path("asked.txt").exists() else 503)
        self.end_headers()
        Path("asked.txt").touch()


HTTPServer(("127.0.0.1", PORT), Answer).serve_forever()
"""


def test_a_section_is_followed_in_order_in_one_directory(tmp_path: Path) -> None:
    for number, section in enumerate(sections(STORY)):
        directory = tmp_path / str(number)
        directory.mkdir()
        follow(section, directory)

    assert (tmp_path / "1/said.txt").exists()
    assert [section.title for section in sections(STORY)] == ["Install", "Use", "Elsewhere"]


def test_a_comment_belongs_to_the_next_block_only() -> None:
    shown = "<!-- not run: a -->\n```sh\nx\n```\n"
    text_between = "<!-- not run: b -->\ntext\n```sh\nz\n```\n"

    (section,) = sections(f"{shown}```sh\ny\n```\n{text_between}")

    assert section.blocks == (
        Block(language="sh", text="x\n", line=2, key="not run", value="a"),
        Block(language="sh", text="y\n", line=5),
        Block(language="sh", text="z\n", line=10),
    )


@pytest.mark.parametrize(
    ("block", "said"),
    [
        ("```sh\nfalse\ntrue\n```\n", "the sh block at line 1 exited with 1"),
        ("\n\n```python\nraise ValueError('no such thing')\n```\n", "ValueError: no such thing"),
        ("```toml\n[project\n```\n", "the toml block at line 1 is no TOML"),
        ("```sh\nno-such-command-anywhere\n```\n", "command not found"),
    ],
)
def test_a_block_that_fails_is_named_with_what_it_said(
    block: str, said: str, tmp_path: Path
) -> None:
    (section,) = sections(block)

    with pytest.raises(BlockFailed, match=said):
        follow(section, tmp_path)


def test_what_runs_in_the_background_ends_with_its_section(tmp_path: Path) -> None:
    port = free_port()
    text = f"""\
<!-- background: port {port} -->
```sh
python -m http.server --bind 127.0.0.1 {port}
```
```python
from urllib.request import urlopen

assert b"readme_line" in urlopen("http://127.0.0.1:{port}/").read()
```
"""
    (section,) = sections(text)

    follow(section, tmp_path)

    assert port_is_free(port)


@needs_client
def test_a_module_that_goes_on_is_ended_once_it_has_printed(tmp_path: Path) -> None:
    (section,) = sections("""\
```js
import { ConvexClient } from "convex/browser";
import { writeFileSync } from "node:fs";
setTimeout(() => {}, 1_000_000);
writeFileSync("said.txt", typeof ConvexClient);
console.log("said");
```
```sh
grep function said.txt
test ! -e node_modules
```
""")

    follow(section, tmp_path)


@needs_client
@pytest.mark.parametrize(
    ("module", "said"),
    [
        (
            "await Promise.reject(new Error('no such thing'))",
            r"exited with 1:\n(?s:.*)no such thing",
        ),
        ("console.log(1); setTimeout(() => { throw new Error('late') }, 100)", "Error: late"),
        ("setTimeout(() => {}, 1_000_000)", "printed nothing"),
        ("export {}", "printed nothing"),
    ],
)
def test_a_module_that_throws_or_prints_nothing_has_failed(
    module: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readme, "PRINT_S_MAX", 2.0)
    (section,) = sections(f"```js\n{module}\n```\n")

    with pytest.raises(BlockFailed, match=said):
        follow(section, tmp_path)


def test_a_module_is_skipped_with_its_reason_where_its_client_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readme, "SKIPS_JAVASCRIPT", True)
    (section,) = sections("```js\nthrow 1\n```\n<!-- file: x.mjs -->\n```js\n1\n```\n")

    follow(section, tmp_path)

    assert [CLIENT_MISSING, None] == [block.why_not_run for block in section.blocks]
    assert "1\n" == (tmp_path / "x.mjs").read_text()


def test_what_is_not_ready_yet_is_waited_for(tmp_path: Path) -> None:
    port = free_port()
    (tmp_path / "serve.py").write_text(SLOW_TO_BE_READY.replace("PORT", str(port)))
    (section,) = sections(f"""\
<!-- background: port {port} -->
```sh
python serve.py
```
```sh
test -e asked.txt
```
""")

    follow(section, tmp_path)


def test_what_never_listens_is_named_with_what_it_said(tmp_path: Path) -> None:
    text = f"<!-- background: port {free_port()} -->\n```sh\necho no disk\n```\n"
    (section,) = sections(text)

    with pytest.raises(BlockFailed, match=r"never listened on port \d+:\nno disk"):
        follow(section, tmp_path)


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        (section,) = sections(f"<!-- background: port {port} -->\n```sh\nsleep 9\n```\n")

        with pytest.raises(BlockFailed, match=f"port {port} is taken by another program"):
            follow(section, tmp_path)


def free_port() -> int:
    with socket.socket() as asked:
        asked.bind(("127.0.0.1", 0))
        port: int = asked.getsockname()[1]
        return port


def port_is_free(port: int) -> bool:
    with socket.socket() as asked:
        return asked.connect_ex(("127.0.0.1", port)) != 0
