"""What must hold between settings, as an operator would break it."""

from collections.abc import Callable

import pytest

from gateway.config.keys import hashed

Complaints = Callable[..., list[str]]

P = "providers: {p: {kind: openai, api_key: x}, q: {kind: anthropic, api_key: x}}\n"


def models(text: str) -> str:
    return f"{P}models: {{{text}}}\n"


def to(provider: str, model: str = "m") -> str:
    return f'targets: [{{provider: {provider}, model: "{model}"}}]'


GOOD = [
    models(f"a: {{{to('p')}, fallbacks: [b]}}, b: {{{to('p')}}}"),
    models(f'a: {{{to("p")}, fallbacks: [x/y]}}, "x/*": {{{to("p", "*")}}}'),
    models("a: {targets: [{provider: p, model: m}, {provider: q, model: m}], fallbacks: [b]}, b: {" + to("q") + "}"),
    models(f'"*": {{{to("p", "*")}}}'),
    "listen: {port: 0}\nadmin: {port: 0, token: 0123456789abcdef}",
    "listen: {port: 80}\nadmin: {port: 80, host: 127.0.0.2, token: 0123456789abcdef}",
    "listen: {host: '::'}",
    "listen: {host: '::1', proxy_protocol: true}\ntrusted_proxies: [10.0.0.0/8]",
    "routes: [{name: a, match: {path: /v1/*, model: gpt-*}}, {name: b}]",
    "journal: {max_bytes: 1MiB, segment_bytes: 256KiB}\nexports: [{name: a, kind: file, path: /tmp/x}]",
    "database: {url: 'postgresql://u:p@h/d'}",
    "keys: [{id: a@b.c, secret: x}, {id: d/e, secret: y}]",
    "keys: [{id: a, secret: x, role: on-call.2, data_class: PII_eu}]\nroutes: [{name: a, data_class: public}]",
    "limits: {rules: [{name: r, per: [role, model], in_flight: 5}, {name: s, per: [data_class], in_flight: 5}]}",
    f"{P}limits: {{rules: [{{name: r, tokens: 5, every: minute, match: {{provider: p, route: default}}}}]}}",
    f"{P}limits: {{rules: [{{name: r, tokens: 5, every: minute, match: {{provider: '*'}}}}]}}",
]


@pytest.mark.parametrize("text", GOOD)
def test_configs_that_hold(complaints: Complaints, text: str) -> None:
    assert complaints(text) == []


RPM = "keys: [{id: a, secret: x, rpm: 1}]"
SLOTS = "{name: r%d, in_flight: 5}"
BAD = [
    ("limits: {rules: [{name: r, tokens: 5}]}", "limits.rules[0].every: is missing"),
    ("limits: {store: 'http://h'}", "limits.store: has no scheme that is known"),
    ("limits: {slices: true}", "limits.slices: is of no use without a `store`"),
    (
        f"{P}limits: {{rules: [{{name: r, in_flight: 5, match: {{provider: pp}}}}]}}",
        'fits no provider; did you mean "p"?',
    ),
    ("limits: {rules: [{name: r, in_flight: 5, match: {route: fast}}]}", "fits no route; there are: default (is fast)"),
    (
        f"limits: {{rules: [{', '.join(SLOTS % n for n in range(17))}]}}",
        "limits.rules: may put 17 limits on one request",
    ),
    (
        f"limits: {{rules: [{', '.join(SLOTS % n for n in range(15))}]}}\nteams: {{t: {{rpm: 1}}}}\n{RPM}",
        "may put 17 limits",
    ),
    (models(f"a: {{{to('opnai')}}}"), "models.a.targets[0].provider: names no provider; there are: p, q (is opnai)"),
    (models(f"a: {{{to('pp')}}}"), 'did you mean "p"?'),
    (f"models: {{a: {{{to('p')}}}}}", "there are: none"),
    (models(f"a: {{{to('p', '*')}}}"), "this model has no star"),
    (models(f'"a*": {{{to("p", "x*")}}}'), "must be a model's name, or `*` alone"),
    (models(f'"a*b": {{{to("p")}}}'), "only at its end"),
    (models(f'"a b": {{{to("p")}}}'), "characters a model name cannot have"),
    (models("a: {targets: [{provider: p, model: m, weight: 0}]}"), "all have weight 0"),
    (models("a: {targets: [{provider: p, model: m, defaults: {Model: x}}]}"), "decided by each request"),
    (models("a: {targets: [{provider: p, model: m, headers: {Cookie: x}}]}"), "carries a credential"),
    (models(f"a: {{{to('p')}, fallbacks: [bb]}}, b: {{{to('p')}}}"), "names no model"),
    (models(f"a: {{{to('p')}, fallbacks: [b]}}, b: {{{to('q')}}}"), "translation is not built"),
    (models(f"a: {{{to('p')}, fallbacks: [a]}}"), "leads back to `a`"),
    (
        models(f"a: {{{to('p')}, fallbacks: [x]}}, x: {{{to('p')}, fallbacks: [y]}}, y: {{{to('p')}, fallbacks: [x]}}"),
        "leads back to `x`",
    ),
    ("providers: {p: {kind: opnai, api_key: x}}", 'did you mean "openai"?'),
    ("providers: {p: {kind: azure, api_key: x}}", "is not served by this version"),
    ("providers: {a b: {kind: openai, api_key: x}}", "is not a provider name"),
    ("providers: {p: {kind: openai, api_key: x, headers: {te: x}}}", "belongs to one connection"),
    ("providers: {p: {kind: openai}}", "providers.p.api_key: is missing"),
    ("admin: {token: short}", "shorter than 16"),
    ("admin: {token: 0123456789abcdef, port: 8080}", "is also the port of `listen`"),
    ("admin: {token: 0123456789abcdef}\nkeys: [{id: a, secret: 0123456789abcdef}]", "is the admin token"),
    ("listen: {proxy_protocol: true}", "needs `trusted_proxies`"),
    (
        "listen: {proxy_protocol: true, tls: {cert: /dev/null, key: /dev/null}}\ntrusted_proxies: [10.0.0.0/8]",
        "listen.proxy_protocol: cannot stand beside `listen.tls`: end TLS at the proxy",
    ),
    ("listen: {host: 'http://x'}", "must be an address or a host name"),
    ("listen: {host: '[::1]'}", "must be an address or a host name"),
    ("spool_bytes: 1GiB", "spool_total_bytes: must be at least `spool_bytes`"),
    ("listen: {tls: {cert: a, key: /dev/null}}", "listen.tls.cert: is not there"),
    ("keys: [{id: a, secret: x}, {id: a, secret: y}]", "keys[1].id: is also the id of keys[0]"),
    ("keys: [{id: a, secret: x}, {id: b, secret: x}]", "keys[1].secret: is also the secret of keys[0]"),
    ("keys: [{id: a b, secret: x}]", "is not a key id"),
    ("keys: [{id: a, secret: 'sha256:00'}]", "64 lowercase hex digits"),
    ("keys: [{id: a, secret: x, models: ['a*b']}]", "keys[0].models[0]: may have one `*`"),
    ("keys: [{id: a, secret: x, role: on call}]", "keys[0].role: is not a role: letters, digits, `.`, `_` and `-`"),
    ("keys: [{id: a, secret: x, data_class: a|b}]", "keys[0].data_class: is not a class of data: letters, digits"),
    ("routes: [{name: a, data_class: -x}]", "routes[0].data_class: is not a class of data: letters, digits"),
    ("routes: [{name: a}, {name: a}]", "is also the name of routes[0]"),
    ("routes: [{name: default}]", "use `defaults` to change it"),
    ("routes: [{name: a b}]", "is not a route name"),
    ("routes: [{name: a, match: {path: v1}}]", "must start with `/`"),
    ("routes: [{name: a, match: {model: a*b}}]", "routes[0].match.model: may have one `*`"),
    ("journal: {anchors: [{kind: file}]}", "journal.anchors[0].path: is missing: an anchor of kind file needs it"),
    ("journal: {max_bytes: 1MiB, segment_bytes: 512KiB}", "journal.max_bytes: holds less than four segments"),
    ("database: {url: 'mysql://u:hidden@h/d'}", "database.url: must be postgresql://"),
    ("exports: [{name: a b, kind: stdout}]", "is not an export's name"),
    ("exports: [{name: a, kind: stdout}, {name: a, kind: stdout}]", "is also the name of exports[0]"),
    ("exports: [{name: a, kind: file}]", "exports[0].path: is missing"),
    ("journal: {enabled: false}\nexports: [{name: a, kind: stdout}]", "have nothing to read"),
    ("defaults: {timeouts: {first_byte_s: 9, total_s: 5}}", "is longer than `total_s`"),
]


@pytest.mark.parametrize(("text", "said"), BAD)
def test_configs_that_do_not(complaints: Complaints, text: str, said: str) -> None:
    found = complaints(text)
    assert found
    assert said in "\n".join(found)


def test_a_circle_is_reported_where_it_closes(complaints: Complaints) -> None:
    text = models(
        f"a: {{{to('p')}, fallbacks: [b]}}, b: {{{to('p')}, fallbacks: [c]}}, c: {{{to('p')}, fallbacks: [b]}}"
    )
    assert [line.split(": ")[1] for line in complaints(text)] == ["models.b.fallbacks[0]", "models.c.fallbacks[0]"]


def test_a_key_and_its_hash_are_the_same_secret(complaints: Complaints) -> None:
    text = f"keys: [{{id: a, secret: gw-x}}, {{id: b, secret: '{hashed('gw-x')}'}}]"
    assert "is also the secret of keys[0]" in complaints(text)[0]


def test_an_environments_proxy_is_looked_at_where_it_would_be_used(complaints: Complaints) -> None:
    assert complaints(P, HTTPS_PROXY="http://proxy:3128") == []
    found = complaints(P.replace("x},", "x, proxy: none},"), HTTPS_PROXY="socks5://u:hidden@proxy:1")
    assert len(found) == 1
    assert "providers.q.proxy: is left to the environment, and HTTPS_PROXY must be http://host:port" in found[0]
    assert "hidden" not in found[0]


def test_a_setting_already_reported_is_not_reported_twice(complaints: Complaints) -> None:
    found = complaints(f"providers: {{p: {{kind: openai, api_key: '${{KEY}}'}}}}\nmodels: {{a: {{{to('p')}}}}}")
    assert len(found) == 1
    assert "KEY is not set" in found[0]


def test_a_target_is_not_blamed_for_its_providers_fault(complaints: Complaints) -> None:
    found = complaints(f"providers: {{p: {{api_key: x}}}}\nmodels: {{a: {{{to('p')}}}}}")
    assert [line for line in found if "targets" in line] == []
    assert len(found) == 1
