"""Secrets of [kafka] in files, and which settings must not be shown."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

# Keys of kafka-python whose value may be in a file, named by KEY_file. User names are often kept with passwords.
FROM_FILES = ("sasl_plain_username", "sasl_plain_password", "ssl_password", "proxy_url")
# Not a key of kafka-python, which takes an object with a method `token`.
TOKEN_FILE = "sasl_oauth_token_file"  # noqa: S105 (a key's name)
_PROXIES = ("http", "socks5", "socks5h")
MAX_BYTES = 65_536  # no secret is as long: a wrong path may lead to a log
_SECRET_WORDS = ("password", "secret", "token", "key", "jaas", "proxy")  # a proxy's address may hold its password


def is_secret(key: str) -> bool:
    """Whether the value of a key of [kafka] must not be shown. The path of a secret may be.

    >>> is_secret("sasl_plain_password"), is_secret("ssl_keyfile"), is_secret("sasl_plain_username")
    (True, False, False)
    """
    return not key.endswith("file") and any(word in key for word in _SECRET_WORDS)


def is_text(key: str) -> bool:
    """Whether an environment variable's value is plain text. All others are read as JSON, for their numbers."""
    if key == "ssl_check_hostname":
        return False
    return key.startswith(("sasl_", "ssl_", "client_", "group_")) or key.endswith(("_file", "_proxy", "proxy_url"))


def with_files_read(kafka: Mapping[str, Any]) -> dict[str, Any]:
    """The settings, with the contents of each KEY_file under KEY. A token file stays: it is read for each login.

    Raises:
        ValueError: a file or a value that cannot be used. The text never quotes its content.
    """
    done = dict(kafka)
    for key in FROM_FILES:
        path = done.pop(f"{key}_file", None)
        if path is None:
            continue
        if key in done:
            raise ValueError(f"kafka.{key} and kafka.{key}_file exclude each other: give one")
        done[key] = text_of(path, f"kafka.{key}_file")
    for key, value in done.items():
        if is_text(key) and isinstance(value, int | float | list | dict):  # what TOML and JSON have besides text
            raise ValueError(f"kafka.{key}: expected text in quotes, got {type(value).__name__}")
    if not isinstance(done.get("ssl_check_hostname", True), bool):  # kafka-python takes any other word for true
        raise ValueError("kafka.ssl_check_hostname: expected true or false")
    for key in ("proxy_url", "socks5_proxy"):
        if done.get(key) is not None:
            _check_proxy(key, done[key])
    return done


def _check_proxy(key: str, url: str) -> None:
    """Checked here, because kafka-python's errors quote the address with its password."""
    try:
        parsed = urlsplit(url)
        usable = parsed.scheme in _PROXIES and bool(parsed.hostname) and parsed.port is not None
    except ValueError:
        usable = False
    if not usable:
        raise ValueError(f"kafka.{key}: expected {' or '.join(_PROXIES)}://[user:password@]host:port")


def text_of(path: Any, key: str) -> str:
    """A file's text, without the newline at its end that an editor or `echo` adds."""
    try:
        content = bytes_of(path, key)
        text = content.decode()
    except UnicodeDecodeError:
        raise ValueError(f"{key}: {path}: expected UTF-8 text") from None  # the error itself holds the content
    if len(content) > MAX_BYTES:
        raise ValueError(f"{key}: {path}: expected at most {MAX_BYTES} bytes")
    text = text.removesuffix("\n").removesuffix("\r")
    if not text:
        raise ValueError(f"{key}: {path} is empty")
    return text


def bytes_of(path: Any, key: str) -> bytes:
    if not isinstance(path, str) or not path:
        raise ValueError(f"{key}: expected the path of a file")
    try:
        with Path(path).open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = error.strerror if isinstance(error, OSError) else error
        raise ValueError(f"{key}: cannot read {path}: {reason}") from None
    return content
