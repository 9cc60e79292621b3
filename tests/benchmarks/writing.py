"""What writers keep of their speed, beside three other shapes of trigger in the same run."""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import subprocess
import threading
import time
from collections.abc import Iterator

import psycopg
from stage import INSERT, INSERT_MANY, TABLE, Stage, new_stream

Figures = dict[str, float]

# notify: how EctoWatch does it; log: how outbox tables mostly look.
SHAPES = {
    "bare": "",
    "notify": """
CREATE FUNCTION bench_row() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN PERFORM pg_notify('bench', json_build_object('id', NEW.id, 'status', NEW.status)::text); RETURN NULL; END $$;
CREATE TRIGGER bench_row AFTER INSERT ON bench FOR EACH ROW EXECUTE FUNCTION bench_row();
""",
    "log": """
CREATE TABLE bench_log (id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
                        at timestamptz NOT NULL DEFAULT clock_timestamp(),
                        delivered boolean NOT NULL DEFAULT false, payload jsonb NOT NULL);
CREATE INDEX ON bench_log (at) WHERE NOT delivered;
CREATE FUNCTION bench_row() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN INSERT INTO bench_log (payload) VALUES (to_jsonb(NEW)); RETURN NULL; END $$;
CREATE TRIGGER bench_row AFTER INSERT ON bench FOR EACH ROW EXECUTE FUNCTION bench_row();
""",
    "captured": "",
}
# How long a plain CREATE TRIGGER waits here; without a bound, it and all writers wait until the transaction ends.
PLAIN_SECONDS = 3
BULK = f"{INSERT_MANY} FROM generate_series(1, 10000) g"


def single_rows(stage: Stage, seconds: int, rounds: int, clients: tuple[int, ...]) -> Figures:
    """Single-row commits a second, by number of clients and shape; `captured` with the listener running."""
    return _compared(stage, rounds, {f"{count}": (INSERT, count, seconds) for count in clients})


def bulk(stage: Stage, seconds: int, rounds: int) -> Figures:
    """Statements of 10,000 rows a second."""
    return _compared(stage, rounds, {"10k": (BULK, 1, seconds)})


def _compared(stage: Stage, rounds: int, runs: dict[str, tuple[str, int, int]]) -> Figures:
    rates: dict[tuple[str, str], list[float]] = {}
    _warm(stage)
    shapes = list(SHAPES)
    for turn in range(rounds):
        # Each round begins with another shape: who comes first, or after whom, must not count.
        for shape in shapes[turn % len(shapes) :] + shapes[: turn % len(shapes)]:
            for name, (script, clients, seconds) in runs.items():
                with _shaped(stage, shape):
                    rates.setdefault((shape, name), []).append(stage.pgbench(script, clients, seconds))
    found = {f"{shape}_{name}": statistics.median(values) for (shape, name), values in rates.items()}
    for name in runs:
        for shape in SHAPES:
            if shape != "bare":
                pairs = zip(rates[shape, name], rates["bare", name], strict=True)
                found[f"{shape}_of_bare_{name}"] = statistics.median(mine / bare for mine, bare in pairs)
    return found


def _warm(stage: Stage) -> None:
    """Fills WAL segments and has them recycled: making them anew would cost whoever runs first a third of its speed."""
    stage.sql(TABLE + f"{INSERT_MANY} FROM generate_series(1, 4000000) g")
    stage.sql("DROP TABLE bench")
    stage.sql("CHECKPOINT")


@contextlib.contextmanager
def _shaped(stage: Stage, shape: str) -> Iterator[None]:
    asyncio.run(new_stream(stage))
    if shape == "captured":
        with stage.applied(), stage.listener():
            time.sleep(1.5)  # the listener's own start is not what is measured
            yield
        return
    stage.sql(TABLE + SHAPES[shape])
    if shape == "notify":
        with psycopg.connect(stage.dsn, autocommit=True) as listening:
            listening.execute("LISTEN bench")
            yield
    else:
        yield


def install(stage: Stage, seconds: float = 6.0) -> Figures:
    """The longest wait of a writer while capture is installed and another transaction on the table stays open, and
    while a plain CREATE TRIGGER waits for its lock as long as lock_timeout lets it."""
    path = stage.manifest()
    mine, code = _longest_wait(stage, stage.command("apply"), seconds)
    subprocess.run(stage.command("destroy"), check=True, stdout=subprocess.DEVNULL)
    path.unlink()
    function, trigger = (f"CREATE {part}" for part in SHAPES["notify"].split("CREATE ")[1:])
    bounded = f"SET lock_timeout = '{PLAIN_SECONDS}s'"
    command = [str(stage.postgres.bin / "psql"), "-q", "-d", stage.dsn]
    theirs, _ = _longest_wait(stage, [*command, "-c", function, "-c", bounded, "-c", trigger], seconds)
    return {
        "open_transaction_s": seconds,
        "longest_writer_wait_s": mine,
        "apply_exit_code": code,
        "plain_lock_timeout_s": PLAIN_SECONDS,
        "plain_longest_writer_wait_s": theirs,
        "of_plain": mine / theirs,
    }


def _longest_wait(stage: Stage, command: list[str], seconds: float) -> tuple[float, int]:
    """Of a writer, in seconds, while `command` runs beside a transaction that stays open; and its exit code."""
    stage.sql(TABLE)
    waits: list[float] = []
    stop = threading.Event()

    def write() -> None:
        with psycopg.connect(stage.dsn, autocommit=True) as connection:
            while not stop.is_set():
                began = time.perf_counter()
                connection.execute(INSERT.encode())
                waits.append(time.perf_counter() - began)

    with psycopg.connect(stage.dsn) as open_one:
        open_one.execute(INSERT.encode())
        writer = threading.Thread(target=write)
        writer.start()
        running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(seconds)
        open_one.commit()
    running.wait(60)
    stop.set()
    writer.join()
    return max(waits), running.returncode
