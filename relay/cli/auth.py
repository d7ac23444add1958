"""`relay auth …`: logging in at an upstream with OAuth2: the login, how it stands, a test of it, the way there."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from relay.cli.desk import load_as_service
from relay.cli.language import say, sentence
from relay.cli.options import ConfigOption, JsonOption
from relay.cli.screen import complain, progress, refuse, show, show_document
from relay.cli.serve import DEFAULT_CONFIG
from relay.errors import RelayError

if TYPE_CHECKING:
    from relay.cli.table import Line
    from relay.config.model import Config
    from relay.transport.tokens import TokenSource

auth = typer.Typer(no_args_is_help=True, help="Log in at upstreams with OAuth2, and see how that stands.")

UpstreamArgument = Annotated[
    str, typer.Argument(metavar="UPSTREAM", help="An upstream with oauth2.", show_default=False)
]
KeyOption = Annotated[
    Path | None,
    typer.Option("--state-key", metavar="FILE", help="The key that kept tokens are encrypted with, if there is one."),
]
_HEADED = 9


class Guide(StrEnum):
    """What `relay auth setup` knows."""

    M365 = "m365"


@auth.command()
def login(upstream: UpstreamArgument, config: ConfigOption = DEFAULT_CONFIG, state_key: KeyOption = None) -> None:
    """Log in once, in a browser anywhere.

    By device code at Microsoft, with a pasted address at Google. A running relay takes the login up by itself within
    half a minute.
    """
    try:
        source = _source(config, upstream, state_key)
        terms = source.terms
        if terms.refresh_token is not None:
            raise RelayError(say("auth.has-refresh-token", name=upstream))
        if terms.provider == "microsoft" and terms.grant == "device_code":
            _by_device_code(source)
        elif terms.provider == "google" and terms.grant == "refresh_token":
            _by_browser(source)
        else:
            raise RelayError(say("auth.no-login", name=upstream, grant=terms.grant))
    except RelayError as error:
        refuse(sentence(error))
    typer.echo(say("auth.done", name=upstream))


def _by_device_code(source: TokenSource) -> None:
    from relay.transport.oauth2 import device_login

    begun = device_login(source.terms)
    typer.echo(say("auth.open", url=begun.url, code=begun.code))
    typer.echo(say("auth.then", username=source.terms.username))
    deadline = time.monotonic() + begun.expires_in
    with progress(say("auth.waiting")) as told:
        started = time.monotonic()
        while (fetched := begun.finish()) is None:
            if time.monotonic() > deadline:
                raise RelayError(say("auth.too-late"))
            told(int(time.monotonic() - started))
            time.sleep(begun.interval)
    source.keep(fetched)


def _by_browser(source: TokenSource) -> None:
    from relay.transport.oauth2 import browser_login

    begun = browser_login(source.terms)
    typer.echo(f"{say('auth.open-address', username=source.terms.username)}\n")
    typer.echo(f"{begun.url}\n")
    typer.echo(say("auth.as-it-should"))
    pasted = typer.prompt(say("auth.paste"))
    source.keep(begun.finish(pasted))


@auth.command()
def status(config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False, state_key: KeyOption = None) -> None:
    """Show tokens, secrets and errors of each upstream with OAuth2.

    Exit code 1: something needs a person.
    """
    try:
        told = _standing(config, state_key)
    except RelayError as error:
        refuse(sentence(error))
    if as_json:
        show_document({"version": 1, "upstreams": told})
    elif told:
        show(_lines(told))
    else:
        complain(say("auth.nobody"))
    raise typer.Exit(1 if any(each["needs_a_person"] for each in told) else 0)


def _standing(file: Path, state_key: Path | None) -> list[dict[str, Any]]:
    from relay.config import outside
    from relay.observe.needs_a_person import CREDENTIAL_STEPS, DAY, TOKEN_LATE

    config, now = load_as_service(file), datetime.now(UTC)
    ends = outside.oauth2_ends(config, outside.credentials(config))
    told = []
    for name in _names(config):
        kept, error, error_at, valid = None, "", None, False
        try:
            kept = _source_of(config, name, state_key).kept()
        except RelayError as trouble:
            error = str(trouble)
        token_ends = None
        if kept is not None:
            token_ends = datetime.fromtimestamp(kept.expires_at, UTC) if kept.access_token else None
            valid = token_ends is not None and token_ends > now
            # One that persisted would have been met again by now.
            old = valid and now.timestamp() - kept.error_at > TOKEN_LATE.total_seconds()
            if kept.error and not error and not old:
                error, error_at = kept.error, datetime.fromtimestamp(kept.error_at, UTC)
        secret_ends = ends.get(name)
        soon = secret_ends is not None and secret_ends - now <= max(CREDENTIAL_STEPS) * DAY
        told.append(
            {
                "name": name,
                "username": config.upstreams[name].mailbox,
                "token_expires": token_ends.isoformat() if token_ends is not None else None,
                "token_valid": valid,
                "secret_expires": secret_ends.isoformat() if secret_ends is not None else None,
                "error": error or None,
                "error_at": error_at.isoformat() if error_at is not None else None,
                "needs_a_person": soon or bool(error) or not valid,
            }
        )
    return told


def _lines(told: list[dict[str, Any]]) -> Iterator[Line]:
    from relay.cli.human import age, days_until, moment, of_json
    from relay.cli.table import line
    from relay.observe.log_lines import harmless

    now = datetime.now(UTC)
    for each in told:
        yield line(f"{harmless(each['name'])}  {harmless(each['username'] or '')}", "bold")
        if each["token_expires"] is None:
            yield _labelled("token", say("auth.token-none"), "yellow")
        else:
            ends = of_json(each["token_expires"])
            if each["token_valid"]:
                left = age((ends - now).total_seconds())
                yield _labelled("token", say("auth.token-valid", moment=moment(ends, now), age=left))
            else:
                yield _labelled("token", say("auth.token-ended", moment=moment(ends, now)), "red")
        if each["secret_expires"] is not None:
            ends = of_json(each["secret_expires"])
            days = days_until(ends, now)
            style = "red" if days < 1 else "yellow" if days < 30 else ""
            key = "auth.secret-ends" if ends > now else "auth.secret-over"
            yield _labelled("secret", say(key, day=f"{ends:%Y-%m-%d}", days=days), style)
        if each["error"]:
            when = f" ({moment(of_json(each['error_at']), now)})" if each["error_at"] else ""
            yield _labelled("error", harmless(each["error"]) + when, "red")


def _labelled(label: str, words: str, style: str = "") -> Line:
    return ((f"  {say(f'auth.label-{label}'):7} {words}", style),)


@auth.command("test")
def try_(
    upstream: UpstreamArgument,
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
    state_key: KeyOption = None,
) -> None:
    """Fetch a token and log in with it, step by step; no mail is sent. Exit code 1: it did not work."""
    try:
        loaded = load_as_service(config)
        _must_have_oauth2(loaded, upstream)
        steps = asyncio.run(_tried(loaded, upstream, key_of(state_key)))
    except RelayError as error:
        refuse(sentence(error))
    good = all(step["ok"] for step in steps)
    if as_json:
        show_document({"version": 1, "upstream": upstream, "ok": good, "steps": steps})
    else:
        show(_step_lines(steps))
    raise typer.Exit(0 if good else 1)


def _step_lines(steps: list[dict[str, Any]]) -> Iterator[Line]:
    from relay.cli.table import line
    from relay.observe.log_lines import harmless

    for step in steps:
        mark, style = ("✓", "green") if step["ok"] else ("✗", "bold red")
        told = f"{mark} {step['step']:{_HEADED}}" + harmless(step["text"])
        yield line(told.rstrip(), style if not step["ok"] else "")
        if step["remedy"]:
            yield line(f"  {'':{_HEADED}}-> {harmless(step['remedy'])}", "cyan")


async def _tried(config: Config, name: str, key: str | None) -> list[dict[str, Any]]:
    """The steps that were made, the last one perhaps in vain."""
    from relay import wiring
    from relay.cli.desk import Nobody
    from relay.mail.outcome import Deferred

    way = wiring.transport(name, config, observer=Nobody(), state_key=key)
    source = way.tokens
    assert source is not None
    token = await source.get(fresh=True)
    if isinstance(token, Deferred):
        return [_step("token", config, name, token)]
    ends = datetime.fromtimestamp(token.expires_at).astimezone()
    steps = [_step("token", text=f"for {source.terms.username}, valid until {ends:%H:%M:%S}")]
    connection = await way.connect()
    order = config.upstreams[name].stages
    if isinstance(connection, Deferred):
        stage = str(connection.stage)
        passed = order[: order.index(stage)] if stage in order else ()
        return [*steps, *map(_step, passed), _step(stage, config, name, connection)]
    await connection.close()
    return [*steps, *map(_step, order), _step("quit")]


def _step(
    step: str, config: Config | None = None, name: str = "", outcome: Any = None, *, text: str = ""
) -> dict[str, Any]:
    remedy = ""
    if outcome is not None and config is not None:
        from relay.observe.provider_texts import connection_remedy

        reply = outcome.reply
        text = str(reply) if reply is not None else outcome.text
        code, status = (reply.code, reply.status) if reply is not None else (0, "")
        found = connection_remedy(outcome.stage, outcome.trouble, code, status, outcome.text)
        remedy = say(f"remedy.{found}", name=name)
    return {"step": step, "ok": outcome is None, "text": text, "remedy": remedy}


@auth.command()
def setup(
    provider: Annotated[Guide, typer.Argument(help="Whose steps: m365.")],
    mailbox: Annotated[
        str, typer.Option("--mailbox", metavar="ADDRESS", help="The mailbox that mail is sent from.")
    ] = "administratie@example.nl",
    months: Annotated[int, typer.Option("--months", min=1, max=24, help="How long the secret is to last.")] = 24,
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Print the steps, and a PowerShell script that does them.

    Nothing is changed by this command.
    """
    from relay.cli.setup_m365 import guide

    assert provider is Guide.M365
    with suppress(RelayError):  # it says the language; there need not be one yet
        load_as_service(config)
    try:
        typer.echo(guide(mailbox, months), nl=False)
    except RelayError as error:
        refuse(sentence(error), 2)


# The configuration


def _names(config: Config) -> list[str]:
    return [name for name, one in config.upstreams.items() if one.oauth2 is not None]


def _must_have_oauth2(config: Config, name: str) -> None:
    from relay.config.problems import did_you_mean, quoted

    found = config.upstreams.get(name)
    if found is None:
        hint = did_you_mean(name, config.upstreams)
        raise RelayError(f"no upstream named {quoted(name)}" + (f" ({hint})" if hint else ""))
    if found.oauth2 is None:
        raise RelayError(say("auth.no-oauth2", name=name))


def _source(file: Path, name: str, state_key: Path | None) -> TokenSource:
    return _source_of(load_as_service(file), name, state_key)


def _source_of(config: Config, name: str, state_key: Path | None) -> TokenSource:
    from relay import wiring
    from relay.cli.desk import Nobody

    _must_have_oauth2(config, name)
    return wiring.token_source(name, config, observer=Nobody(), state_key=key_of(state_key))


def key_of(file: Path | None) -> str | None:
    from relay.config.secrets import Secret

    return None if file is None else Secret("file", str(file)).reveal()
