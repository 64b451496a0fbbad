"""Writers that are killed at any moment: acknowledged batches are stored once, in order, and no batch in part.

python -m tests.campaigns kills --backend file --count 5000 --state kills-file.json

Each round starts a writer process, which appends batches of one to three messages (some of 200 kB, now and then a title
or a forget) and reports each batch when its append has returned. It is killed after a random number of reports and a
random short delay. A second process then opens the store, compares what is there with what was reported, and appends.
The count is saved in the state file after each round; the same command continues from there. Exits with 1 at the first
fault.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import random
import re
import sys
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

from chathistory import Conversation, History, open_store
from tests.campaigns.store_urls import BACKENDS, store_url

ROUNDS_A_CONVERSATION = 40
_TEXT = re.compile(r"batch (\d+), part (\d+) of (\d+) ")


def batch_texts(number: int, maker: random.Random) -> list[str]:
    """Return the texts of a batch. Each names its batch, its part, and the number of parts."""
    count = maker.choice((1, 1, 2, 3))
    padding = maker.choice((0, 10, 700, 5000, 200_000 if number % 11 == 0 else 90))
    return [f"batch {number}, part {part} of {count} {'.' * padding}" for part in range(count)]


def write(url: str, id: str, number: int, seed: int, reports: Connection) -> None:
    """Append batches from `number` on until killed; report the number of each that was acknowledged."""
    maker = random.Random(seed)
    with open_store(url) as store:
        chat = History(store).conversation(id)
        while True:
            texts = batch_texts(number, maker)
            chat.append([{"role": "user", "content": text} for text in texts])
            reports.send(number)
            number += 1
            if number % 7 == 0:
                chat.annotate(title=f"after batch {number - 1}")
            if number % 29 == 0 and (entries := chat.last_entries(20)):
                chat.forget(before=entries[0].position)


def read_parts(chat: Conversation) -> Iterator[tuple[int, int, int]]:
    """Yield (batch, part, parts) of each message that is kept, oldest first."""
    for entry in chat.entries():
        if entry.kind == "message" and entry.message is not None:
            found = _TEXT.match(entry.message["content"])
            assert found is not None, f"position {entry.position} holds a text that no writer wrote"
            number, part, count = map(int, found.groups())
            yield number, part, count


def check(url: str, id: str, reported: int, results: Connection) -> None:
    """Compare what is stored with the last batch that was reported (-1: no batch was).

    Sends a text that says what is wrong, or the number of the next batch.
    """
    try:
        with open_store(url) as store:
            chat = History(store).conversation(id)
            found = list(read_parts(chat))
            results.send(verdict(found, reported))
            if found:
                chat.annotate(title="checked")  # the store can still be written to
    except BaseException as error:  # noqa: BLE001 - whatever it is, it is the result of the round
        results.send(f"{type(error).__name__}: {error}")


def verdict(found: list[tuple[int, int, int]], reported: int) -> str | int:
    """Return what is wrong with the parts that were found, or the number of the next batch."""
    for (number, part, count), following in itertools.zip_longest(found, found[1:]):
        expected = (number, part + 1) if part + 1 < count else (number + 1, 0)
        if following is None:
            if part + 1 < count:
                return f"batch {number} ends after part {part} of {count}"
        elif following[:2] != expected:
            return f"batch {number}, part {part} is followed by batch {following[0]}, part {following[1]}"
    last = found[-1][0] if found else -1
    if last not in (reported, reported + 1):
        return f"batch {reported} was acknowledged, but the last that is stored is {last}"
    return last + 1


def run_round(context: multiprocessing.context.ForkServerContext, url: str, id: str, number: int, seed: int) -> int:
    """Start a writer at batch `number`, kill it, and check what it left; return the number of the next batch."""
    maker = random.Random(seed)
    reports, writing = context.Pipe(duplex=False)
    writer = context.Process(target=write, args=(url, id, number, seed, writing), daemon=True)
    writer.start()
    writing.close()
    reported = number - 1
    for _ in range(maker.randrange(6)):
        reported = reports.recv()
    time.sleep(maker.random() * maker.choice((0.0, 0.001, 0.01)))
    writer.kill()
    writer.join()
    try:
        while True:
            reported = reports.recv()
    except EOFError:
        pass
    results, sending = context.Pipe(duplex=False)
    checker = context.Process(target=check, args=(url, id, reported, sending), daemon=True)
    checker.start()
    sending.close()
    result = results.recv()
    checker.join()
    if not isinstance(result, int):
        raise SystemExit(f"conversation {id}, seed {seed}: {result}")
    return result


def main(arguments: list[str] | None = None) -> int:
    """Run rounds until `--count` is reached in the state file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", choices=BACKENDS, required=True)
    parser.add_argument("--count", type=int, required=True, help="kills in all, those of earlier runs included")
    parser.add_argument("--state", type=Path, required=True, help="where the count is kept between runs")
    given = parser.parse_args(arguments)
    done = json.loads(given.state.read_text())["kills"] if given.state.exists() else 0
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.campaigns.kills", f"chathistory_{given.backend}"])
    with store_url(given.backend) as url:
        number, id = 0, ""
        for kill in range(done, given.count):
            if kill == done or kill % ROUNDS_A_CONVERSATION == 0:
                number, id = 0, f"killed-{kill}"
            number = run_round(context, url, id, number, seed=kill)
            given.state.write_text(json.dumps({"backend": given.backend, "kills": kill + 1}))
    sys.stdout.write(f"{given.backend}: {given.count} kills, nothing acknowledged was lost\n")
    return 0
