"""On which line of a TOML file each key stands.

``tomllib`` gives values without positions. This scanner reads a text that ``tomllib`` has already
accepted and notes where each key begins; it checks nothing.
"""

from __future__ import annotations

import re

# A place in a document: keys of tables and, inside arrays, positions.
KeyPath = tuple[str | int, ...]

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_ESCAPE = re.compile(r'\\(?:u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|(["\\bfnrte]))')
_ESCAPED = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "e": "\x1b"}


def key_lines(text: str) -> dict[KeyPath, int]:
    """Each key, table and array element of ``text`` with its line, counted from 1."""
    return _Scanner(text.replace("\r\n", "\n")).scan()


class _Scanner:
    """One pass over the text; ``here`` is the position of the next character."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.here = 0
        self.lines: dict[KeyPath, int] = {}
        self.table: KeyPath = ()
        # How many elements each array of tables has so far.
        self.elements: dict[KeyPath, int] = {}

    def scan(self) -> dict[KeyPath, int]:
        while self._skip_blank():
            if self._peek("["):
                self._header()
            else:
                self._pair(self.table)
        return self.lines

    def _line(self) -> int:
        return self.text.count("\n", 0, self.here) + 1

    def _peek(self, start: str) -> bool:
        return self.text.startswith(start, self.here)

    def _skip_blank(self, *, also: str = "") -> bool:
        """Past white space, line ends, comments; false at the end of the text."""
        while self.here < len(self.text):
            character = self.text[self.here]
            if character == "#":
                end = self.text.find("\n", self.here)
                self.here = len(self.text) if end < 0 else end
            elif character in " \t\n" or character in also:
                self.here += 1
            else:
                return True
        return False

    def _note(self, path: KeyPath, line: int) -> None:
        self.lines.setdefault(path, line)

    def _header(self) -> None:
        line = self._line()
        array = self._peek("[[")
        self.here += 2 if array else 1
        keys = self._dotted_key()
        path: KeyPath = ()
        for depth, key in enumerate(keys):
            path = (*path, key)
            self._note(path, line)
            # A table inside an array of tables belongs to the array's newest element.
            if path in self.elements and not (array and depth == len(keys) - 1):
                path = (*path, self.elements[path] - 1)
        if array:
            count = self.elements.get(path, 0)
            self.elements[path] = count + 1
            path = (*path, count)
            self._note(path, line)
        else:
            self.lines[path] = line
        self.here += 2 if array else 1
        self.table = path

    def _pair(self, table: KeyPath) -> None:
        line = self._line()
        path = table
        for key in self._dotted_key():
            path = (*path, key)
            self._note(path, line)
        self._skip_blank()
        self.here += 1  # the equals sign
        self._skip_blank()
        self._value(path)

    def _dotted_key(self) -> list[str]:
        keys = []
        while True:
            self._skip_blank()
            keys.append(self._key())
            self._skip_blank()
            if not self._peek("."):
                return keys
            self.here += 1

    def _key(self) -> str:
        if self._peek('"'):
            return _unescaped(self._string())
        if self._peek("'"):
            return self._string()
        match = _BARE_KEY.match(self.text, self.here)
        end = match.end() if match else self.here + 1
        key = self.text[self.here : end]
        self.here = end
        return key

    def _string(self) -> str:
        """Past a string; gives what stands between its quotes."""
        quote = self.text[self.here]
        fence = quote * 3 if self._peek(quote * 3) else quote
        start = self.here = self.here + len(fence)
        while self.here < len(self.text) and not self._peek(fence):
            self.here += 2 if quote == '"' and self._peek("\\") else 1
        # A multi-line string may end in up to two more quotes, which belong to it.
        while len(fence) == 3 and self.text.startswith(quote, self.here + 3):
            self.here += 1
        content = self.text[start : self.here]
        self.here += len(fence)
        return content

    def _value(self, path: KeyPath) -> None:
        if self._peek("["):
            self._array(path)
        elif self._peek("{"):
            self.here += 1
            while self._skip_blank(also=",") and not self._peek("}"):
                self._pair(path)
            self.here += 1
        elif self._peek('"') or self._peek("'"):
            self._string()
        else:
            while self.here < len(self.text) and self.text[self.here] not in ",]}#\n":
                self.here += 1

    def _array(self, path: KeyPath) -> None:
        self.here += 1
        count = 0
        while self._skip_blank(also=",") and not self._peek("]"):
            element = (*path, count)
            self._note(element, self._line())
            self._value(element)
            count += 1
        self.here += 1


def _unescaped(text: str) -> str:
    def character(match: re.Match[str]) -> str:
        short, long, letter = match.groups()
        if letter:
            return _ESCAPED.get(letter, letter)
        return chr(int(short or long, 16))

    return _ESCAPE.sub(character, text)
