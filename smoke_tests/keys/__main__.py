"""Command line: `python -m smoke_tests.keys (--stack NAME | --local | --file PATH) (--add | --rotate | --revoke NAME | --list)`."""

from __future__ import annotations

import argparse
import secrets
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from image.gateway.keys_document import KeysError, timestamp
from image.gateway.keys_document import parse as parse_document
from infra.command_line import count, run
from smoke_tests.errors import TargetError
from smoke_tests.keys.document import Document
from smoke_tests.keys.stores import ConflictError, FileStore, SecretStore, Store
from smoke_tests.options import add_endpoint_name, add_profile, add_stack, check_stack_options, file_path, new_parser
from smoke_tests.stack import read_stack

UNUSABLE = 2
NO_ACTION = "nothing to do; set one of: --add NAME, --rotate NAME, --revoke NAME, --list"
MOST_TRIES = 10
DEFAULT_GRACE_HOURS = 24.0
LONGEST_GRACE_HOURS = 24.0 * 365


def main(arguments: list[str] | None = None) -> int:
    """Change or list the keys.

    Only a new key is printed to stdout; everything else goes to stderr.

    Returns:
        0: done; 2: rejected, with a one-line error.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        if options.check:
            return _check(options.check)
        if options.stack is None and not options.local and options.file is None:
            raise TargetError("which endpoint? Give --stack NAME, --local or --file PATH")
        check_stack_options(options)
        if not (options.add or options.rotate or options.revoke or options.list):
            raise TargetError(NO_ACTION)
        store = _store(options)
        if options.list:
            _list(Document(store.read()[0]))
        elif options.revoke:
            change(store, lambda document: document.revoke(options.revoke))
            _say(
                f"Revoked every key of {options.revoke}; running gateways reject them within {store.notice_seconds:g} s."
            )
        else:
            _new_key(store, options)
        if options.local and not options.list:
            _write_local_files()
    except TargetError as error:
        print(f"error: {error}", file=sys.stderr)
        return UNUSABLE
    return 0


def change(store: Store, edit: Callable[[Document], None]) -> None:
    """Read, edit and write; retry if another process wrote in between. Raises TargetError."""
    for _ in range(MOST_TRIES):
        text, version = store.read()
        document = Document(text)
        edit(document)
        try:
            store.write(document.text(), version)
        except ConflictError:
            continue
        return
    raise TargetError(f"other processes changed the keys {MOST_TRIES} times in the meantime; try again")


def _new_key(store: Store, options: argparse.Namespace) -> None:
    key = f"sk-{secrets.token_urlsafe(32)}"
    extra = _extra(options)
    if options.add:
        change(store, lambda document: document.add(options.add, key, extra, time.time()))
        _say(
            f"Added {options.add}. Running gateways accept the key within {store.notice_seconds:g} s. Copy it now, because it is not shown again:"
        )
    else:
        grace = options.grace_hours * 3600
        change(store, lambda document: document.rotate(options.rotate, key, extra, time.time(), grace))
        _say(
            f"Rotated {options.rotate}. Running gateways accept the new key within {store.notice_seconds:g} s, and the old "
            f"one for {options.grace_hours:g} h. Copy the new key now, because it is not shown again:"
        )
    print(key)


def _extra(options: argparse.Namespace) -> dict[str, Any]:
    names = ("concurrency", "requests_per_minute", "tokens_per_minute")
    limits = {name: value for name in names if (value := getattr(options, name)) is not None}
    found: dict[str, Any] = {"limits": limits} if limits else {}
    if options.expires:
        try:
            if timestamp(options.expires) <= time.time():
                raise TargetError(f"--expires: {options.expires} is past; set a later date")
        except ValueError as error:
            raise TargetError(f"--expires: {error}") from None
        found["expires"] = options.expires
    if options.priority is not None:
        found["priority"] = options.priority
    if options.health:
        found["health"] = True
    return found


def _store(options: argparse.Namespace) -> Store:
    if options.local:
        from local import folders

        if not folders.API_KEYS.exists():
            raise TargetError("there are no keys on this machine yet; start the endpoint once with make local")
        return FileStore(folders.API_KEYS)
    if options.file is not None:
        return FileStore(options.file)
    stack = read_stack(options.stack, options.endpoint_name, read_key=False)
    outputs, tag = stack.outputs, stack.identity.tag
    which = f"endpoint {tag}" if stack.identity.endpoint else f"stack {options.stack!r}"
    arn, set_by = outputs.get("apiKeySecretArn"), outputs.get("apiKeysSetBy", "make key")
    if not arn:
        raise TargetError(
            f"the keys of {which} are not in Secrets Manager; on Kubernetes set apiKeysDocument, then pulumi up"
        )
    if set_by != "make key" and not options.list and stack.identity.endpoint:
        raise TargetError(
            f"the keys of {which} come from its argument {set_by}; change it in the program and run pulumi up. To manage them "
            f"here from now on: remove {set_by} from the program, pulumi up (which keeps the keys), and again"
        )
    if set_by != "make key" and not options.list:
        raise TargetError(
            f"the keys of {which} come from its setting {set_by}; change it there and run pulumi up. To manage "
            f"them here from now on: pulumi config rm {set_by}, pulumi up (which keeps the keys), and again"
        )
    return SecretStore(str(arn), outputs.get("region"), options.profile)


def _write_local_files() -> None:
    """Update the key file and curl headers that make local prints: they contain the first key. Raises TargetError."""
    from local import gateway
    from local.failures import LocalError

    try:
        gateway.make_key()
    except LocalError as error:
        raise TargetError(f"the change is made, but {error}") from None


def _list(document: Document) -> None:
    rows = document.rows(time.time())
    if not rows:
        _say("There are no keys.")
        return
    widths = {column: max(len(column), *(len(row[column]) for row in rows)) for column in rows[0]}
    for row in [{column: column for column in widths}, *rows]:
        print("  ".join(row[column].ljust(width) for column, width in widths.items()).rstrip())


def _check(path: Path) -> int:
    try:
        keys = parse_document(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise TargetError(f"cannot read {path}: {getattr(error, 'strerror', None) or 'it is not UTF-8'}") from None
    except KeysError as error:
        for problem in error.problems:
            print(f"error: {problem}", file=sys.stderr)
        return UNUSABLE
    _say(f"{path}: {len(keys)} keys of {len({key.name for key in keys.values()})} names")
    return 0


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = new_parser("smoke_tests.keys", "Manage an endpoint's API keys.")
    where = parser.add_mutually_exclusive_group()
    add_stack(where)
    add_endpoint_name(parser)
    where.add_argument("--local", action="store_true", help="the endpoint of make local")
    where.add_argument("--file", type=file_path, metavar="PATH", help="a keys document in a file")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--add", metavar="NAME", help="a new name with a new key, which is printed once")
    what.add_argument("--rotate", metavar="NAME", help="a new key for a name; the old one is good for the grace period")
    what.add_argument("--revoke", metavar="NAME", help="refuse every key of a name at once")
    what.add_argument("--list", action="store_true", help="names, expiry, limits; never a key")
    what.add_argument("--check", type=file_path, metavar="PATH", help="say what is wrong with a keys document")
    parser.add_argument("--concurrency", type=count, metavar="N", help="limit: requests at once")
    parser.add_argument("--requests-per-minute", type=count, metavar="N", help="limit")
    parser.add_argument("--tokens-per-minute", type=count, metavar="N", help="limit")
    parser.add_argument("--expires", metavar="TIME", help="RFC 3339, such as 2027-01-31T00:00:00Z")
    parser.add_argument(
        "--priority", type=int, metavar="N", help="-100 to 100; the highest is served first (default 0)"
    )
    parser.add_argument("--health", action="store_true", help="for health checks, which are no demand")
    parser.add_argument(
        "--grace-hours",
        type=_grace_hours,
        default=DEFAULT_GRACE_HOURS,
        metavar="H",
        help="how long --rotate leaves the old key good (default 24)",
    )
    add_profile(parser)
    return parser


def _grace_hours(text: str) -> float:
    try:
        hours = float(text)
    except ValueError:
        hours = -1.0
    if not 0 <= hours <= LONGEST_GRACE_HOURS:
        raise argparse.ArgumentTypeError(f"found {text}; set hours from 0 to {LONGEST_GRACE_HOURS:g}")
    return hours


if __name__ == "__main__":
    run(main)
