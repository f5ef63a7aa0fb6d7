"""Taking out of texts what nobody else should read: local folders, user names in paths, credentials.

Used on everything that can be published: the page, the card and the results that are pushed.
"""

from __future__ import annotations

import re
import shlex
from typing import Any

__all__ = ["TOKEN_PATTERN", "redact", "sanitise_command"]

#: Access tokens of the Hub, in text and in bytes of files. Real ones are longer; a short cut-off costs nothing.
TOKEN_PATTERN = r"\bhf_[A-Za-z0-9]{20,}"

_HIDDEN = "***"
_SECRET = re.compile(TOKEN_PATTERN)
_SECRET_NAME = re.compile(r"(?i)(token|secret|password|passwd|api_?key|credential)s?$")
# Names of classes and groups are keys elsewhere in the results, and have to stay the same as those.
_NAMES = ("class_names", "group_names", "worst_group", "fallen")
_OPTION = re.compile(r"(?P<name>-{0,2}[A-Za-z_][\w-]*)(?:=(?P<value>.*))?", re.DOTALL)
_ADDRESS = r"(?P<scheme>(?!file:)[A-Za-z][A-Za-z0-9+.-]*://)(?:[^\s/@\"']*@)?(?P<rest>[^\s?\"']*)(?:\?[^\s\"']*)?"
_PATH = (
    r"(?P<path>(?<![^\s\"'`=:,;([{])(?:file://)?"
    r"(?:~[\w.-]*/|/|(?:\.\.?[/\\])*\.\.[/\\]|[A-Za-z]:[\\/])[^\s\"'=,;:()<>|&]+)"
)
_ADDRESS_OR_PATH = re.compile(f"{_ADDRESS}|{_PATH}")


def redact(content: Any) -> Any:
    """A copy of a JSON-like structure in which every string (not key) is free of local paths and credentials.

    A path that is absolute or leaves the working folder shrinks to its last component; the query and the user of an
    address are dropped; a Hub token becomes `***`, and so does any value under a key that ends in `token`, `password`
    and the like. A value under the key `command` is read as a command line. Names of classes and groups stay.
    """
    if isinstance(content, dict):
        return {key: _sanitise_value(key, value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [redact(value) for value in content]
    return _sanitise_text(content) if isinstance(content, str) else content


def _sanitise_value(key: Any, value: Any) -> Any:
    if key in _NAMES:
        return value
    if isinstance(value, str) and _SECRET_NAME.search(str(key)):
        return _HIDDEN
    return sanitise_command(value) if key == "command" and isinstance(value, str) else redact(value)


def sanitise_command(command: str) -> str:
    """A command line without local paths and credentials, still readable as the same command.

    >>> sanitise_command("python /home/ann/run.py --dataset='/data/my set' --hub_token hf_abc HF_TOKEN=hf_abc")
    "python run.py '--dataset=my set' --hub_token '***' 'HF_TOKEN=***'"
    """
    try:
        words = shlex.split(command)
    except ValueError:  # an unbalanced quote: split as well as can be
        words = command.split()
    cleaned = []
    hide_next = False
    for word in words:
        option = _OPTION.fullmatch(word)
        secret = bool(option and _SECRET_NAME.search(option["name"]))
        if hide_next and not word.startswith("-"):
            cleaned.append(_HIDDEN)
        elif option and option["value"] is not None:
            cleaned.append(f"{option['name']}={_HIDDEN if secret else _sanitise_word(option['value'])}")
        else:
            cleaned.append(_sanitise_word(word))
        hide_next = secret and word.startswith("-") and "=" not in word
    return shlex.join(cleaned)


def _sanitise_word(word: str) -> str:
    """Like `_sanitise_text`, but one word of a command that is a path may hold spaces."""
    whole = _ADDRESS_OR_PATH.match(word)
    if whole and whole["path"]:
        return _sanitise_text(_last_component(word))
    return _sanitise_text(word)


def _sanitise_text(text: str) -> str:
    def shorten(match: re.Match[str]) -> str:
        return match["scheme"] + match["rest"] if match["scheme"] else _last_component(match["path"])

    return _SECRET.sub(_HIDDEN, _ADDRESS_OR_PATH.sub(shorten, text))


def _last_component(path: str) -> str:
    parts = [part for part in re.split(r"[/\\]", path) if part not in ("", ".", "..", "~")]
    return parts[-1] if parts else "."
