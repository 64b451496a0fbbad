"""Fixtures of the tests of the S3 store: one server, and a bucket for each test."""

import itertools

import pytest
from s3_samples import open_s3_store
from s3_server import CREDENTIALS, serving

_numbers = itertools.count()

MAIN = {
    "test_a_range_without_a_damaged_record_is_readable": ("pairs", "three hundreds"),
    "test_read_returns_the_start_of_every_range": ("0-2", "3-5"),
    "test_heads_lists_the_conversations_after_damaged_heads": ("-3",),
    "test_pages_list_each_conversation_once_and_end": ("1", "4", "12", "13"),
    "test_no_text_remains_after_forget": ("-long", "3-short", "3-very long"),
    "test_delete_removes_nothing_of_the_next_conversation": ("one per thread",),
    "test_delete_is_never_seen_half_done": ("one per thread",),
    "test_forget_loses_no_concurrent_append": ("one per thread",),
    "test_every_instance_sees_each_write_at_once": ("one per thread",),
    "test_creating_an_existing_conversation_is_a_conflict_during_writes": ("one per thread",),
}
"""Tests of the contract with many requests: the ends of the names of the parameters that stay in the main tier.

The others run with the tests marked `wide`. Each parameter that stays takes another path through the store, such as
records in the head and in segments; one instance in many threads is in the main tier with the other races.
"""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    for item in items:
        kept = MAIN.get(getattr(item, "originalname", None))
        if kept and "test_s3_contract" in item.nodeid and not item.callspec.id.endswith(kept):
            item.add_marker(pytest.mark.wide)
        if "TestExactListing::test_heads_and_keys_list_250_conversations" in item.nodeid:
            item.add_marker(pytest.mark.wide)  # a page of a long listing is in test_s3_costs


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
