"""Fixtures of the tests of the S3 store: one server, and a bucket for each test."""

import itertools

import pytest
from s3_samples import open_s3_store
from s3_server import CREDENTIALS, serving

_numbers = itertools.count()


@pytest.fixture(scope="session")
def running():
    with serving() as server:
        yield server


@pytest.fixture(scope="session")
def shared_client(running):
    client = running.client(max_pool_connections=50)
    yield client
    client.close()


@pytest.fixture(autouse=True)
def _environment(monkeypatch, tmp_path):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", CREDENTIALS["aws_access_key_id"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", CREDENTIALS["aws_secret_access_key"])
    monkeypatch.setenv("AWS_DEFAULT_REGION", CREDENTIALS["region_name"])
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "no-config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "no-credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
def client(shared_client):
    return shared_client


@pytest.fixture
def bucket(shared_client):
    name = f"bucket-{next(_numbers)}"
    shared_client.create_bucket(Bucket=name)
    return name


@pytest.fixture
def server(running, bucket):
    running.stop_faults()
    running.log.clear()
    yield running
    running.stop_faults()


@pytest.fixture
def store(server, client, bucket):
    with open_s3_store(client, bucket, "history") as store:
        yield store
        server.stop_faults()
