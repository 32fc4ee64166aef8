"""The gateway's configuration is as an operator would write it, and the operator of the bench has the last word."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from bench.speed import targets
from bench.speed.certificates import Certificates
from bench.speed.launch import Host
from bench.speed.targets import AMPLE, Gateway, Limited, Place
from bench.speed.workload import MODEL
from gateway.config.limits import Allowance, Prices
from gateway.config.load import load
from gateway.config.schema import Config

PLACE = Place(core=0, upstream_port=9000, folder=Path("/nowhere"), descriptors=20_000)


@pytest.mark.parametrize(
    ("base", "extra", "merged"),
    [
        ({"a": 1}, {}, {"a": 1}),
        ({"a": 1}, {"b": 2}, {"a": 1, "b": 2}),
        ({"a": {"b": 1, "c": 2}}, {"a": {"c": 3}}, {"a": {"b": 1, "c": 3}}),
        ({"a": [1, 2]}, {"a": [3]}, {"a": [3]}),  # a list is replaced: there is no telling which entry is meant
        ({"a": {"b": 1}}, {"a": None}, {"a": None}),
    ],
)
def test_settings_are_laid_over(base: dict[str, object], extra: dict[str, object], merged: dict[str, object]) -> None:
    assert targets.overlaid(base, extra) == merged


def test_one_worker_and_the_upstream_as_its_provider() -> None:
    config = Gateway().config(PLACE, port=8000, secret="gw-secret")
    assert config["listen"] == {"host": "127.0.0.1", "port": 8000, "workers": 1, "max_connections": 20_000}
    assert "http://127.0.0.1:9000/v1" in str(config["providers"])


def test_a_gateway_on_another_host_listens_there_and_finds_its_upstream() -> None:
    place = replace(PLACE, host=Host("198.18.0.12"), upstream_address="198.18.0.1")
    config = Gateway().config(place, port=8000, secret="gw-secret")
    assert "'host': '198.18.0.12'" in str(config["listen"])
    assert "http://198.18.0.1:9000/v1" in str(config["providers"])


def test_with_certificates_both_sides_speak_tls_and_the_provider_is_verified() -> None:
    made = Certificates(Path("/ca"), Path("/cert"), Path("/key"))
    config = Gateway().config(replace(PLACE, certificates=made), port=8000, secret="gw-secret")
    assert "'tls': {'cert': '/cert', 'key': '/key'}" in str(config["listen"])
    assert "'base_url': 'https://127.0.0.1:9000/v1'" in str(config["providers"])
    assert "'ca_file': '/ca'" in str(config["providers"])
    assert "tls" not in str(Gateway().config(PLACE, port=8000, secret="gw-secret"))


def test_what_the_bench_is_told_wins() -> None:
    gateway = Gateway(extra={"listen": {"workers": 2}, "log": {"requests": "all"}})
    config = gateway.config(PLACE, port=8000, secret="gw-secret")
    assert config["listen"] == {"host": "127.0.0.1", "port": 8000, "workers": 2, "max_connections": 20_000}
    assert config["log"] == {"requests": "all"}


def test_targets_come_in_the_order_of_the_report() -> None:
    assert [target.name for target in targets.make(("gateway", "direct"), {})] == ["direct", "gateway"]


def test_a_limited_gateway_counts_four_limits_on_its_key_and_knows_a_price(tmp_path: Path) -> None:
    plain, limited = (of_a_file(made, tmp_path) for made in (Gateway(), Limited()))
    assert plain.keys[0].allowance is None
    assert plain.models[MODEL].price is None
    assert limited.keys[0].allowance == Allowance(
        rpm=10**9, tpm=10**9, max_in_flight=1_000_000, usd_per_month=1_000_000
    )
    assert limited.models[MODEL].price == Prices(input=2.5, output=10)


def of_a_file(gateway: Gateway, folder: Path) -> Config:
    path = folder / "gateway.yaml"
    path.write_text(yaml.safe_dump(gateway.config(PLACE, 8000, "gw-" + "s" * 43)))
    return load(path)


def test_the_limits_of_a_key_can_be_said_by_the_operator_of_the_bench() -> None:
    keys = [{"id": "mine", "secret": "gw-" + "s" * 43, "rpm": 7}]
    config = Limited(extra={"keys": keys}).config(PLACE, 8000, "gw-secret")
    assert config["keys"] == [{**AMPLE, **keys[0]}]
