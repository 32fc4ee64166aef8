"""`gateway init`: a config that works at once and teaches while it is read.

With a provider's key in the environment it serves that provider; without any it points at the simulated one on
loopback, so that a first answer needs no account. Key and admin token are random, and stand in the file because
whoever runs `init` is about to use them: the file is for its owner only, and says how to keep a hash instead.
"""

import os
import secrets
from collections.abc import Mapping as Names
from pathlib import Path
from typing import Final, NamedTuple

from gateway.config.files import FILE_MODE
from gateway.config.keys import new_secret

SIM_PORT: Final = 9100


class InitResult(NamedTuple):
    """What was written and how to use it: a key, and a model that answers in `dialect`."""

    path: Path
    key: str
    admin_token: str
    model: str
    dialect: str


class _Choice(NamedTuple):
    """A provider to serve: its line, and the model to try it with."""

    name: str
    line: str
    model: str
    dialect: str


_OPENAI: Final = _Choice("openai", '  openai: {kind: openai, api_key: "${OPENAI_API_KEY}"}\n', "gpt-4o-mini", "openai")
_ANTHROPIC: Final = _Choice(
    "claude", '  claude: {kind: anthropic, api_key: "${ANTHROPIC_API_KEY}"}\n', "claude-haiku-4-5", "anthropic"
)
_SIM: Final = _Choice(
    "sim",
    "  # The simulated provider: `python -m bench.sim` serves it, `make run` starts it. A real one in its place:\n"
    '  # openai: {kind: openai, api_key: "${OPENAI_API_KEY}"}\n'
    f"  sim: {{kind: openai, base_url: http://127.0.0.1:{SIM_PORT}/v1, api_key: sim}}\n",
    "sim-echo",
    "openai",
)
_SIM_CLAUDE: Final = _Choice(
    "sim-claude",
    f"  sim-claude: {{kind: anthropic, base_url: http://127.0.0.1:{SIM_PORT}/v1, api_key: sim}}\n",
    "sim-claude",
    "anthropic",
)

_TEMPLATE: Final = """\
# The config of this gateway. Every setting is described in docs/configuration.md.
#   gateway check --config {name}    says what is wrong with it, or what it does
#   kill -HUP <supervisor>           makes a running gateway take it, or keep the old one and say why
# Secrets may be written as "${{VARIABLE}}", "file:PATH" or "credential:NAME" (systemd).

listen: {{host: 127.0.0.1, port: 8080, workers: 0}}  # workers: 0 is one per core
admin:                                             # its own port, never without a token
  {{host: 127.0.0.1, port: 8081, token: "{admin_token}"}}
state_dir: ./state                                 # snapshots and revocations; relative to this file

# Where requests go. The keys of providers stay here; callers never see them.
providers:
{providers}
# The names callers may ask for, and the targets that serve them. `*` in a target is what the name's `*` stood for.
models:
{models}
# Who may call. `gateway keys new` makes another key, `gateway keys hash` what may stand here in its place.
keys:
  - {{id: first, secret: "{key}", org: default, models: ["*"]}}
"""


def default_config(env: Names[str, str], key: str, admin_token: str, name: str = "gateway.yaml") -> str:
    """The text of a first config for that environment."""
    choices = _choices(env)
    return _TEMPLATE.format(
        name=name,
        key=key,
        admin_token=admin_token,
        providers="".join(choice.line for choice in choices),
        models=_models(choices),
    )


def init(path: str | os.PathLike[str], env: Names[str, str] | None = None) -> InitResult:
    """Write a first config, readable by its owner only. Raises FileExistsError where there is one already."""
    env = os.environ if env is None else env
    file = Path(path)
    key, admin_token = new_secret(), secrets.token_urlsafe(32)
    text = default_config(env, key, admin_token, file.name)
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)
    with os.fdopen(descriptor, "w", encoding="utf-8") as opened:
        opened.write(text)
    first = _choices(env)[0]
    return InitResult(file, key, admin_token, first.model, first.dialect)


def _models(choices: list[_Choice]) -> str:
    named = [f"  {c.model}: {{targets: [{{provider: {c.name}, model: {c.model}}}]}}\n" for c in choices]
    every = ", ".join(f'{{provider: {choice.name}, model: "*"}}' for choice in choices)
    why = "every other name" + (", by the target that speaks the request's dialect" if len(choices) > 1 else "")
    return f'{"".join(named)}  "*":  # {why}\n    targets: [{every}]\n'


def _choices(env: Names[str, str]) -> list[_Choice]:
    real = [("OPENAI_API_KEY", _OPENAI), ("ANTHROPIC_API_KEY", _ANTHROPIC)]
    return [choice for variable, choice in real if env.get(variable)] or [_SIM, _SIM_CLAUDE]
