"""Certificates that gRPC cannot serve: refused at the start, and at a renewal, by a handshake."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest

from headstart_service.auth.certificate_facts import facts_of
from headstart_service.auth.server_certificate import ServerCertificate, TlsFiles
from headstart_service.domain.errors import StartupError
from tests.support.certificates import Certificate, authority, self_signed, signed
from tests.support.commands import run_here
from tests.support.waiting import wait_until

P256 = ("ec", "-pkeyopt", "ec_paramgen_curve:P-256")
P384 = ("ec", "-pkeyopt", "ec_paramgen_curve:P-384")
P521 = ("ec", "-pkeyopt", "ec_paramgen_curve:P-521")


def run(*arguments: str | Path) -> None:
    done = subprocess.run(["openssl", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def install(new: Certificate, files: TlsFiles) -> None:
    for source, place in ((new.cert, files.cert), (new.key, files.key)):
        shutil.copy(source, place.with_suffix(".new"))
        place.with_suffix(".new").rename(place)


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        (("ed25519",), "Ed25519"),
        (P521, "ECDSA P-521"),
        (("rsa-pss", "-pkeyopt", "rsa_keygen_bits:2048"), "RSA-PSS"),
    ],
)
def test_a_key_that_no_grpc_client_accepts_stops_the_start_and_is_named(
    tmp_path: Path, key: tuple[str, ...], kind: str
):
    made = self_signed(tmp_path, *key)
    files = {"HEADSTART_TLS_CERT": str(made.cert), "HEADSTART_TLS_KEY": str(made.key)}
    for command in (["check-config"], ["serve", "--no-worker"]):
        code, said = run_here(*command, **files)
        assert code == 2
        assert f"HEADSTART_TLS_CERT: gRPC cannot serve {made.cert}, {made.key}" in said
        assert f"a key of kind {kind}" in said
        assert "allowed are an RSA key, or an ECDSA key on P-256 or P-384" in said


@pytest.mark.parametrize("key", [P256, P384, ("rsa:2048",)])
def test_every_allowed_kind_of_key_is_served(tmp_path: Path, key: tuple[str, ...]):
    made = self_signed(tmp_path, *key)
    certificate = ServerCertificate(TlsFiles(cert=made.cert, key=made.key))
    assert certificate.expires == facts_of(made.cert.read_bytes())[0].ends


@pytest.mark.parametrize(
    "names",
    [
        "subjectAltName=DNS:*.headstart.example",
        "subjectAltName=IP:10.1.2.3",
        "subjectAltName=IP:fd00::1",
        "subjectAltName=URI:spiffe://headstart/api,DNS:headstart.svc",
        "basicConstraints=critical,CA:TRUE",
    ],
)
def test_a_certificate_for_any_name_is_tried_by_that_name(tmp_path: Path, names: str):
    made = self_signed(tmp_path, *P256, names=names)
    ServerCertificate(TlsFiles(cert=made.cert, key=made.key))


def test_a_certificate_without_any_name_is_refused(tmp_path: Path):
    made = self_signed(tmp_path, *P256, names="")
    with pytest.raises(
        StartupError, match=r"handshake fails: .* without a name \(subjectAltName\)"
    ):
        ServerCertificate(TlsFiles(cert=made.cert, key=made.key))


@pytest.mark.parametrize(
    ("days", "told"), [((-9, -2), "ended on "), ((2, 9), "is not valid before ")]
)
def test_a_certificate_out_of_its_time_is_refused_with_its_date(
    tmp_path: Path, days: tuple[int, int], told: str
):
    made = self_signed(tmp_path, *P256, days=days)
    files = {"HEADSTART_TLS_CERT": str(made.cert), "HEADSTART_TLS_KEY": str(made.key)}
    date = f"{datetime.now(UTC) + timedelta(days=days[told.startswith('ended')]):%Y-%m-%d}"
    code, said = run_here("check-config", **files)
    assert code == 2
    assert said.startswith(f"headstart: HEADSTART_TLS_CERT: the certificate of {made.cert} {told}")
    assert date in said
    assert said.count("\n") == 1
    good = self_signed(tmp_path, *P256)
    with pytest.raises(StartupError, match=f"TLS_CLIENT_CA: .* {told}.*no client could connect"):
        ServerCertificate(TlsFiles(cert=good.cert, key=good.key, client_ca=made.cert))


def test_of_a_chain_the_first_authority_must_be_valid_and_no_other(tmp_path: Path):
    ended = self_signed(tmp_path, *P256, names="basicConstraints=CA:TRUE", days=(-9, -2))
    between = signed(ended, tmp_path, "between", further="basicConstraints=CA:TRUE")
    chains = {"long": [between, ended], "short": [ended]}
    files = {}
    for name, above in chains.items():
        made = signed(above[0], tmp_path, name)
        made.cert.write_text("".join(each.cert.read_text() for each in [made, *above]))
        files[name] = TlsFiles(cert=made.cert, key=made.key)
    ServerCertificate(files["long"])  # clients that trust `between` connect
    with pytest.raises(StartupError, match=r"ended on .*of the authority that signed"):
        ServerCertificate(files["short"])


@pytest.mark.parametrize(
    "text", ["", "hello", "-----BEGIN CERTIFICATE-----\nAAAA\n", "{cert}{bad}"]
)
def test_authorities_of_clients_that_cannot_all_be_read_are_refused(tmp_path: Path, text: str):
    made = self_signed(tmp_path, *P256)
    bad = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    ca = tmp_path / "ca.pem"
    ca.write_text(text.format(cert=made.cert.read_text(), bad=bad))
    with pytest.raises(StartupError, match=rf"HEADSTART_TLS_CLIENT_CA: {ca} holds no certificate"):
        ServerCertificate(TlsFiles(cert=made.cert, key=made.key, client_ca=ca))


async def connects(port: int, trusted: Certificate) -> bool:
    credentials = grpc.ssl_channel_credentials(trusted.cert.read_bytes())
    options = (("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0))
    async with grpc.aio.secure_channel(f"localhost:{port}", credentials, options) as channel:
        try:
            await channel.unary_unary("/no/method")(b"", timeout=10)
        except grpc.aio.AioRpcError as error:
            return error.code() is grpc.StatusCode.UNIMPLEMENTED
    raise AssertionError("no such method")


@pytest.mark.promise("An unusable renewal changes nothing", "self-connection first")
async def test_a_renewal_that_cannot_be_served_leaves_the_last_good_certificate(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    root = authority(tmp_path, "root")
    files = TlsFiles(cert=tmp_path / "server.pem", key=tmp_path / "server.key")
    install(signed(root, tmp_path, "first"), files)
    certificate = await asyncio.to_thread(ServerCertificate, files)
    ends = certificate.expires
    server = grpc.aio.server()
    port = server.add_secure_port("127.0.0.1:0", certificate.credentials())
    await server.start()
    bad = [self_signed(tmp_path, "ed25519"), self_signed(tmp_path, *P256, days=(-9, -2))]
    try:
        for number, wrong in enumerate(bad, 1):
            install(wrong, files)
            await asyncio.to_thread(certificate.look)
            assert certificate.refusals == number
            assert await connects(port, root), "the old one serves"
            await asyncio.to_thread(certificate.look)
            assert certificate.refusals == number, "it is reported once"
        assert certificate.expires == ends
        assert [r.getMessage().count("stays in force") for r in caplog.records] == [1, 1]
        good = self_signed(tmp_path, "rsa:2048")
        install(good, files)
        await asyncio.to_thread(certificate.look)
        assert await connects(port, good)
        assert not await connects(port, root)
    finally:
        await server.stop(None)


async def test_a_renewal_that_becomes_valid_later_is_used_then(tmp_path: Path):
    files = TlsFiles(cert=tmp_path / "server.pem", key=tmp_path / "server.key")
    install(self_signed(tmp_path, *P256), files)
    certificate = await asyncio.to_thread(ServerCertificate, files, try_again=0.0)
    early = self_signed(tmp_path, *P256, days=(5 / 86400, 9))
    install(early, files)
    [facts] = facts_of(early.cert.read_bytes())

    def used() -> bool:
        certificate.look()
        assert certificate.expires != facts.ends or time.time() >= facts.begins
        return certificate.expires == facts.ends

    assert not used()
    await wait_until(used, 30)
    assert certificate.refusals == 1, "files that have not changed are reported once"


def test_what_a_certificate_holds_is_what_openssl_reads(tmp_path: Path):
    made = authority(tmp_path, "ca")
    run("req", "-x509", "-nodes", "-newkey", *P384, "-days", "20000", "-subj", "/CN=long",
        "-keyout", tmp_path / "key", "-out", tmp_path / "long.pem")  # fmt: skip
    long = (tmp_path / "long.pem").read_bytes()
    for pem in (made.cert.read_bytes(), long):
        done = subprocess.run(
            ["openssl", "x509", "-dates", "-noout"], input=pem, check=True, capture_output=True
        )
        dates = dict(line.split("=") for line in done.stdout.decode().splitlines())
        [facts] = facts_of(pem)
        assert facts.begins == ssl.cert_time_to_seconds(dates["notBefore"])
        assert facts.ends == ssl.cert_time_to_seconds(dates["notAfter"])
    assert datetime.fromtimestamp(facts.ends, UTC).year > 2050
    assert (facts.key, facts.name) == ("ECDSA P-384", "long")
    assert len(facts_of(long + made.cert.read_bytes())) == 2
    assert facts_of(made.key.read_bytes()) == []
    for broken in ("AAAA", "MIIBAAAA", ""):
        with pytest.raises(ValueError, match="cannot be read"):
            facts_of(f"-----BEGIN CERTIFICATE-----\n{broken}\n-----END CERTIFICATE-----\n".encode())
