"""An S3 on 127.0.0.1, behind a proxy that spoils what it is told to."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.request import Request, urlopen

import boto3
from botocore.config import Config
from moto.server import ThreadedMotoServer

from tests.faults.proxy import Proxy, serve

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_CONFIG_FILE": "/dev/null",
    "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
    "AWS_EC2_METADATA_DISABLED": "true",  # no other traffic
}


@dataclass(frozen=True)
class Store:
    """A bucket, and the way to it that spoils."""

    proxy: Proxy
    environment: Mapping[str, str]  #: what a user of it sets
    upstream: str

    def put(self, objects: Mapping[str, bytes]) -> None:
        """Write objects into the bucket, past the proxy."""
        client = _client(self.upstream)
        for key, body in objects.items():
            client.put_object(Bucket="bucket", Key=key, Body=body)
        client.close()


@contextmanager
def s3() -> Iterator[Store]:
    """A store with an empty bucket called bucket, while the block runs."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        upstream = f"http://{host}:{port}"
        # All of a process's servers share what they hold.
        urlopen(Request(f"{upstream}/moto-api/reset", method="POST"), timeout=10).close()
        client = _client(upstream)
        client.create_bucket(Bucket="bucket")
        client.close()
        with serve(f"{host}:{port}") as (proxy, url):
            yield Store(proxy, {**CREDENTIALS, "AWS_ENDPOINT_URL": url}, upstream)
    finally:
        server.stop()


def _client(url: str) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=url,
        region_name=CREDENTIALS["AWS_DEFAULT_REGION"],
        aws_access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
        # Stored checksums would find what is cut short; not every store has them.
        config=Config(request_checksum_calculation="when_required"),
    )
