"""The table [kafka]: which keys may stand in it, which values are secret, and secrets read from files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

# Keys of kafka-python that Tamis sets itself: delivery, decoding and commits depend on them.
_OURS = frozenset(
    (
        *("bootstrap_servers", "group_id", "auto_offset_reset", "enable_auto_commit", "acks", "enable_idempotence"),
        *("key_deserializer", "value_deserializer", "key_serializer", "value_serializer", "transactional_id"),
        *("isolation_level", "max_poll_records", "partition_assignment_strategy", "allow_auto_create_topics"),
    )
)
# kafka-python accepts these and ignores them: refused, because a user would think the connection safer than it is.
_IGNORED = {
    "ssl_ciphers": "kafka-python ignores it; configure ciphers in OpenSSL's own configuration",
    "ssl_crlfile": "kafka-python cannot load it; use short-lived broker certificates instead",
}
# Keys of kafka-python that can be read from a file as KEY_file. The user name is no secret, but often lies beside one.
FROM_FILES = ("sasl_plain_username", "sasl_plain_password", "ssl_password", "proxy_url")
# Not a key of kafka-python, which wants an object with a method.
TOKEN_FILE = "sasl_oauth_token_file"  # noqa: S105 (a key's name)

_PROXIES = ("http", "socks5", "socks5h")
_MAX_BYTES = 65_536  # no secret is longer; a wrong path may point to a log
_SECRET_WORDS = ("password", "secret", "token", "key", "jaas", "proxy")  # a proxy's address may contain its password


def is_secret(key: str) -> bool:
    """Whether the value of a key of [kafka] must not be shown. The path of a secret file may be shown.

    >>> is_secret("sasl_plain_password"), is_secret("ssl_keyfile"), is_secret("sasl_plain_username")
    (True, False, False)
    """
    return not key.endswith("file") and any(word in key for word in _SECRET_WORDS)


def is_text(key: str) -> bool:
    """Whether an environment variable's value is taken as text; any other is read as JSON, so numbers are numbers."""
    if key == "ssl_check_hostname":
        return False
    return key.startswith(("sasl_", "ssl_", "client_", "group_")) or key.endswith(("_file", "_proxy", "proxy_url"))


def _refuse_unknown_keys(kafka: Mapping[str, Any]) -> None:
    from kafka import KafkaConsumer, KafkaProducer

    known = (KafkaConsumer.DEFAULT_CONFIG.keys() | KafkaProducer.DEFAULT_CONFIG.keys()) - _OURS - _IGNORED.keys()
    known |= {f"{key}_file" for key in FROM_FILES} | {TOKEN_FILE}
    for key in kafka:
        if key in _IGNORED:
            raise ValueError(f"kafka.{key}: {_IGNORED[key]}")
        if key in _OURS:
            raise ValueError(f"kafka.{key} cannot be set: Tamis sets it itself, its guarantees depend on it")
        if key not in known:
            near = ", ".join(sorted(k for k in known if k.split("_")[0] == key.split("_")[0])) or "see kafka-python"
            raise ValueError(f"unknown setting kafka.{key}; similar: {near}")


def with_files_read(kafka: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with each KEY_file replaced by its content. A token's file stays: it is read for each login.

    Raises:
        ValueError: a key that kafka-python does not have or ignores, or that Tamis sets itself; a file or a value that
            cannot be used. The text never contains the content.
    """
    _refuse_unknown_keys(kafka)
    done = dict(kafka)
    for key in FROM_FILES:
        if (path := done.pop(f"{key}_file", None)) is None:
            continue
        if key in done:
            raise ValueError(f"kafka.{key} and kafka.{key}_file exclude each other: give one")
        done[key] = read_secret(path, f"kafka.{key}_file")
    for key, value in done.items():
        if is_text(key) and isinstance(value, int | float | list | dict):  # the types of TOML and JSON beside text
            raise ValueError(f"kafka.{key}: expected text in quotes, got {type(value).__name__}")
    if not isinstance(done.get("ssl_check_hostname", True), bool):  # kafka-python takes any text for true
        raise ValueError("kafka.ssl_check_hostname: expected true or false")
    for key in ("proxy_url", "socks5_proxy"):
        if done.get(key) is not None and not _is_proxy(done[key]):
            raise ValueError(f"kafka.{key}: expected {' or '.join(_PROXIES)}://[user:password@]host:port")
    return done


def read_secret(path: Any, key: str) -> str:
    """A file's text without the newline that an editor or `echo` puts at its end. Raises ValueError."""
    content = read_bytes(path, key)
    if len(content) > _MAX_BYTES:
        raise ValueError(f"{key}: {path}: expected at most {_MAX_BYTES} bytes")
    try:
        text = content.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise ValueError(f"{key}: {path}: expected UTF-8 text") from None  # the error itself contains the content
    if not text:
        raise ValueError(f"{key}: {path} is empty")
    return text


def read_bytes(path: Any, key: str) -> bytes:
    """Slightly more than a secret's largest size at most. Raises ValueError."""
    if not isinstance(path, str) or not path:
        raise ValueError(f"{key}: expected the path of a file")
    try:
        with Path(path).open("rb") as file:
            return file.read(_MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = error.strerror if isinstance(error, OSError) else error
        raise ValueError(f"{key}: cannot read {path}: {reason}") from None


def _is_proxy(url: str) -> bool:
    """Checked here, because kafka-python's own errors repeat the address with its password."""
    try:
        parsed = urlsplit(url)
        return parsed.scheme in _PROXIES and bool(parsed.hostname) and parsed.port is not None
    except ValueError:
        return False
