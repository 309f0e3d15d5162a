"""TLS towards PostgreSQL: whose certificates are believed, and what is said when one is not."""

import datetime as dt
import ssl
import threading
from contextlib import contextmanager
from socket import create_server
from types import SimpleNamespace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from sessions.database.postgres_connections import Connections, Limits
from sessions.errors import StoreUnavailable

SSL_REQUEST = bytes.fromhex("0000000804d2162f")
REFUSAL = b"SFATAL\0C3D000\0Mnobody is at home\0\0"


def certificate(name, key, issuer, issuer_key, *, is_authority):
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
    )
    return made.sign(issuer_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """An authority, and a server that it vouches for."""
    folder = tmp_path_factory.mktemp("tls")
    authority, server = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    found = SimpleNamespace(authority=folder / "authority.pem", server=folder / "server.pem")
    found.authority.write_bytes(
        certificate("authority", authority, "authority", authority, is_authority=True)
    )
    found.server.write_bytes(
        server.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + certificate("localhost", server, "authority", authority, is_authority=False)
    )
    return found


@contextmanager
def server(certificates):
    """Speaks PostgreSQL's protocol as far as TLS, and refuses everybody who gets through. Gives the port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.server)
    with create_server(("127.0.0.1", 0)) as listening:

        def serve_one():
            plain, _ = listening.accept()
            plain.settimeout(10)
            with plain:
                assert plain.recv(8) == SSL_REQUEST
                plain.sendall(b"S")
                try:
                    with context.wrap_socket(plain, server_side=True) as secret:
                        secret.recv(1024)
                        secret.sendall(b"E" + (len(REFUSAL) + 4).to_bytes(4) + REFUSAL)
                except (ssl.SSLError, OSError):
                    pass  # the other side did not believe us

        thread = threading.Thread(target=serve_one)
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            thread.join(20)


def refusal(port, options):
    url = f"postgresql://palaver@localhost:{port}/palaver?hostaddr=127.0.0.1&gssencmode=disable&{options}"
    with pytest.raises(StoreUnavailable) as raised, Connections(url, Limits()).lent():
        pass
    return raised.value


@pytest.fixture
def trusting(monkeypatch, certificates):
    """A machine that trusts the authority. libpq's own OpenSSL is told nothing of it."""
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    paths = SimpleNamespace(cafile=str(certificates.authority))
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: paths)


@pytest.mark.parametrize("options", ["sslrootcert=system", "sslmode=verify-full&sslrootcert=system"])
def test_system_is_what_this_machine_trusts(trusting, certificates, options):
    """The server was believed: what it says is heard."""
    with server(certificates) as port:
        assert "nobody is at home" in refusal(port, options).reason


def test_who_is_not_vouched_for_is_not_believed(trusting, certificates, tmp_path, monkeypatch):
    """Another machine, with another authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    other = tmp_path / "other.pem"
    other.write_bytes(certificate("another", key, "another", key, is_authority=True))
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: SimpleNamespace(cafile=str(other)))
    with server(certificates) as port:
        assert "certificate verify failed" in refusal(port, "sslrootcert=system").reason


def test_a_weaker_mode_with_system_is_refused(trusting):
    """As libpq does it: whoever asks for the machine's certificates wants the name checked, too."""
    assert 'weak sslmode "require"' in refusal(1, "sslmode=require&sslrootcert=system").reason


def test_certificates_that_are_not_there_are_told_with_the_way_out(certificates):
    """`verify-full` alone looks for a file in the home folder that hardly anybody has."""
    with server(certificates) as port:
        told = refusal(port, "sslmode=verify-full&sslrootcert=nowhere.crt")
    assert 'root certificate file "nowhere.crt" does not exist' in told.reason
    assert "sslrootcert=system" in told.hint
