"""A process that appends its batches, each as often as it takes."""

from test_s3_concurrent_writers import persist

from chathistory import open_store


def main(url, name, count):
    with open_store(url) as store:
        persist(store, name, int(count))
