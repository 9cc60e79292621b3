"""Bad input to the command line: the exit code of the documentation, a message that says what to do, nothing left."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tablewatcher import __version__
from tablewatcher.cli.reaching import UNREACHABLE_PATIENCE
from tablewatcher.embedded import free_port

from ..conftest import Database, Stream
from .commands import Answer, manifest, tablewatcher, write, write_secret
from .programs import PROGRAM, running, started
from .terminal import terminal

TABLE = "CREATE TABLE public.orders (id bigint PRIMARY KEY, status text, total numeric)"
TRACES = "SELECT count(*) FROM pg_namespace WHERE nspname = 'tablewatcher'"


def fault(answer: Answer, name: str = "shop/orders") -> dict[str, Any]:
    """The one watcher's fault, as JSON; nothing but JSON is printed, and no Python is shown to anybody."""
    assert "Traceback" not in answer.out + answer.err, answer.err
    found = answer.watchers[name]
    assert found["ok"] is False
    return found


@pytest.fixture
async def shop(database: Database) -> Database:
    """The database with its table."""
    await database.execute(TABLE)
    return database


@pytest.fixture
def orders(tmp_path: Path) -> Path:
    """A directory with a sound manifest."""
    return write(tmp_path / "manifests", manifest())


async def test_help_names_every_command() -> None:
    answer = await tablewatcher("--help")
    assert answer.code == 0
    for command in (
        "validate",
        "plan",
        "apply",
        "listen",
        "run",
        "destroy",
        "doctor",
        "status",
        "sql",
        "demo",
        "version",
    ):
        assert command in answer.out


async def test_a_program_is_told_the_version() -> None:
    text, told, option = await asyncio.gather(
        tablewatcher("version"), tablewatcher("version", "--output", "json"), tablewatcher("--version")
    )
    assert text.out == option.out == f"{__version__}\n"
    assert json.loads(told.out) == {"version": __version__}


async def test_validate_needs_no_database_and_no_secret(orders: Path) -> None:
    answer = await tablewatcher("validate", "-f", orders)
    assert (answer.code, answer.out) == (0, "shop/orders: valid\n")


async def test_validate_takes_the_options_of_the_other_commands(orders: Path) -> None:
    """A script has one list of them for all commands. Nothing that they name is looked at."""
    nowhere = f"postgresql://127.0.0.1:{free_port()}/nowhere"
    answer = await tablewatcher(
        "validate", "-f", orders, "--dsn", nowhere, "--secrets-dir", orders / "none", "--instance", "ci"
    )
    assert (answer.code, answer.out) == (0, "shop/orders: valid\n"), answer.err


async def test_an_instance_has_a_name(orders: Path) -> None:
    """As `--instance "$CLUSTER"` has not where nobody has set that."""
    answer = await tablewatcher("validate", "-f", orders, "--instance", "")
    assert answer.code == 2
    assert "must name somebody" in answer.err


async def test_validate_tells_every_mistake_at_once(tmp_path: Path) -> None:
    bad = manifest(actions=["insert", "upsert"], column=["status"], where=[{}], columns=["a" * 64])
    files = write(tmp_path / "manifests", bad)
    text = await tablewatcher("validate", "-f", files)
    assert text.code == 2
    for said in (
        "spec.actions[1]",
        "spec.column: unknown field: did you mean columns?",
        "spec.where[0].column",
        "spec.columns[0]",
    ):
        assert said in text.err
    answer = await tablewatcher("validate", "-f", files, "-o", "json")
    (found,) = json.loads(answer.out)
    assert found["reason"] == "SpecInvalid"
    assert {"spec.actions[1]", "spec.column", "spec.where[0].column", "spec.where[0].operator", "spec.columns[0]"} == {
        error["path"] for error in found["errors"]
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("spec: [", "YAML"),
        ("just a sentence", "document"),
        ("kind: ConfigMap", "no TableWatcher manifest found"),
        ("", "no TableWatcher manifest found"),
    ],
    ids=["broken", "text", "another-kind", "empty"],
)
async def test_a_file_that_is_no_manifest(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "orders.yaml"
    file.write_text(text)
    answer = await tablewatcher("apply", "-f", file, "--dsn", "postgresql://127.0.0.1:1/none")
    assert answer.code == 2
    assert said in answer.err
    assert "orders.yaml" in answer.err


async def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    answer = await tablewatcher("validate", "-f", tmp_path / "none.yaml")
    assert answer.code == 2
    assert "none.yaml cannot be read" in answer.err


async def test_missing_secret(orders: Path, tmp_path: Path) -> None:
    answer = await tablewatcher("apply", "-f", orders, "--secrets-dir", tmp_path, "-o", "json")
    found = fault(answer)
    assert (answer.code, found["reason"]) == (3, "SecretNotFound")
    assert "'shop-app'" in found["message"]
    assert str(tmp_path) in found["message"]


async def test_no_directory_of_secrets(orders: Path) -> None:
    answer = await tablewatcher("apply", "-f", orders)
    assert answer.code == 3
    assert "--secrets-dir" in answer.err
    assert "--dsn" in answer.err


async def test_missing_key_names_what_is_there_and_shows_no_value(orders: Path, tmp_path: Path) -> None:
    place = write_secret(tmp_path / "secrets", username="shop", password="hunter2-hunter2")
    answer = await tablewatcher("apply", "-f", orders, "--secrets-dir", place, "-o", "json")
    found = fault(answer)
    assert (answer.code, found["reason"]) == (3, "SecretKeyMissing")
    assert "'host'" in found["message"]
    assert "password, username" in found["message"]
    assert "hunter2" not in answer.out + answer.err


async def test_a_port_that_is_none_is_told_at_once(orders: Path, tmp_path: Path) -> None:
    place = write_secret(tmp_path / "secrets", host="127.0.0.1", port="abc", username="u", password="hunter2")
    answer = await tablewatcher("apply", "-f", orders, "--secrets-dir", place, "-o", "json")
    assert (answer.code, fault(answer)["reason"]) == (3, "SecretKeyMissing")
    assert "key 'port' of Secret 'shop-app' must be a number" in fault(answer)["message"]
    given = await tablewatcher("apply", "-f", orders, "--dsn", "postgresql://u:hunter2@127.0.0.1:abc/x")
    assert (given.code, "the port in --dsn (or TABLEWATCHER_DSN) must be a number" in given.err) == (2, True)
    assert max(answer.seconds, given.seconds) < UNREACHABLE_PATIENCE
    assert "hunter2" not in answer.out + answer.err + given.err


async def test_wrong_password(shop: Database, orders: Path) -> None:
    role = f"clerk_{secrets.token_hex(4)}"
    await shop.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'right'")
    answer = await tablewatcher("apply", "-f", orders, "--dsn", shop.dsn_of(role, "wrong-word"), "-o", "json")
    assert (answer.code, fault(answer)["reason"]) == (5, "AuthenticationFailed")
    assert "wrong-word" not in answer.out + answer.err
    log = shop.server.log.read_text(errors="replace")
    assert log.count(f'authentication failed for user "{role}"') == 1, "it was tried again"
    await shop.execute(f"DROP ROLE {role}")


async def test_unreachable_database_is_given_up_after_ten_seconds(orders: Path, free_port: Callable[[], int]) -> None:
    answer = await tablewatcher(
        "apply", "-f", orders, "--dsn", f"postgresql://u@127.0.0.1:{free_port()}/x", "-o", "json"
    )
    assert (answer.code, fault(answer)["reason"]) == (4, "DatabaseUnreachable")
    assert "connection refused" in fault(answer)["message"]
    assert UNREACHABLE_PATIENCE <= answer.seconds < 3 * UNREACHABLE_PATIENCE


async def test_missing_table(shop: Database, tmp_path: Path) -> None:
    files = write(tmp_path / "manifests", manifest(table={"name": "Orders"}))
    answer = await tablewatcher("apply", "-f", files, "--dsn", shop.dsn, "-o", "json")
    found = fault(answer)
    assert (answer.code, found["reason"]) == (7, "TableNotFound")
    assert "did you mean public.orders" in found["message"]
    assert await shop.execute(TRACES) == [(0,)]


async def test_missing_column(shop: Database, tmp_path: Path) -> None:
    files = write(tmp_path / "manifests", manifest(columns=["state"], triggerColumns=["totals"]))
    answer = await tablewatcher("apply", "-f", files, "--dsn", shop.dsn, "-o", "json")
    found = fault(answer)
    assert (answer.code, found["reason"]) == (7, "ColumnNotFound")
    for said in ("'state' (spec.columns)", "'totals' (spec.triggerColumns)", "id, status, total"):
        assert said in found["message"]
    assert await shop.execute(TRACES) == [(0,)]


async def test_the_grants_that_a_missing_right_names_are_enough(shop: Database, orders: Path) -> None:
    await shop.execute("DROP ROLE IF EXISTS porter; CREATE ROLE porter LOGIN PASSWORD 'p'")
    dsn = shop.dsn_of("porter", "p")
    answer = await tablewatcher("apply", "-f", orders, "--dsn", dsn, "-o", "json")
    found = fault(answer)
    assert (answer.code, found["reason"]) == (6, "PermissionDenied")
    assert await shop.execute(TRACES) == [(0,)]
    grants = found["message"].partition("must run: ")[2]
    assert grants.count("GRANT") == 2
    await shop.execute(grants)
    applied = await tablewatcher("apply", "-f", orders, "--dsn", dsn)
    assert applied.code == 0, applied.err
    removed = await tablewatcher("destroy", "-f", orders, "--dsn", dsn)
    assert removed.code == 0, removed.err
    await shop.execute("DROP OWNED BY porter; DROP ROLE porter")


async def test_plan_says_that_no_stream_takes_the_subject(shop: Database, stream: Stream, tmp_path: Path) -> None:
    sink = {"nats": {"servers": [stream.url], "subject": "nobody.{table}.{action}"}}
    files = write(tmp_path / "manifests", manifest(sink=sink))
    answer = await tablewatcher("plan", "-f", files, "--dsn", shop.dsn, "-o", "json")
    found = fault(answer)
    assert (answer.code, found["reason"]) == (9, "NoStreamForSubject")
    assert "nobody.orders." in found["message"]
    assert found["steps"], "what apply would do in the database is said all the same"
    assert await shop.execute(TRACES) == [(0,)]


@pytest.mark.parametrize("kind", ["nats", "http"])
async def test_plan_says_that_the_sink_does_not_answer(
    shop: Database, tmp_path: Path, kind: str, free_port: Callable[[], int]
) -> None:
    port = free_port()
    sinks = {
        "nats": {"servers": [f"nats://127.0.0.1:{port}"], "subject": "shop.{table}"},
        "http": {"url": f"http://127.0.0.1:{port}/hook?token=quiet"},
    }
    files = write(tmp_path / "manifests", manifest(sink={kind: sinks[kind]}))
    answer = await tablewatcher("plan", "-f", files, "--dsn", shop.dsn, "-o", "json")
    found = fault(answer)
    assert (answer.code, found["reason"]) == (9, "SinkUnreachable")
    assert f"127.0.0.1:{port}" in found["message"]
    assert "quiet" not in answer.out + answer.err


async def test_a_bad_watcher_does_not_stop_a_good_one(shop: Database, tmp_path: Path) -> None:
    files = write(tmp_path / "manifests", manifest("a-bad", table={"name": "nothing"}), manifest("b-good"))
    (files / "c-broken.yaml").write_text("spec: [")
    answer = await tablewatcher("apply", "-f", files, "--dsn", shop.dsn, "-o", "json")
    assert answer.code == 7
    assert answer.watchers["shop/b-good"]["ok"] is True
    assert fault(answer, "shop/a-bad")["reason"] == "TableNotFound"
    assert len(answer.watchers) == 3
    assert await shop.execute("SELECT identity FROM tablewatcher.watcher") == [("local/shop/b-good",)]


async def test_apply_twice_changes_nothing_and_destroy_leaves_nothing(shop: Database, orders: Path) -> None:
    first = await tablewatcher("apply", "-f", orders, "--dsn", shop.dsn, "-o", "json")
    again = await tablewatcher("apply", "-f", orders, "-o", "json", TABLEWATCHER_DSN=shop.dsn)
    assert (first.code, again.code) == (0, 0)
    assert [each.watchers["shop/orders"]["changed"] for each in (first, again)] == [True, False]
    assert again.watchers["shop/orders"]["primaryKey"] == ["id"]
    removed = await tablewatcher("destroy", "-f", orders, "--dsn", shop.dsn)
    assert removed.code == 0, removed.err
    assert await shop.execute(TRACES) == [(0,)]
    assert await shop.execute("SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal") == [(0,)]


async def test_another_instance_is_left_alone(shop: Database, orders: Path) -> None:
    mine = await tablewatcher("apply", "-f", orders, "--dsn", shop.dsn, "--instance", "one")
    assert mine.code == 0, mine.err
    theirs = await tablewatcher("destroy", "-f", orders, "--dsn", shop.dsn, "--instance", "two")
    assert theirs.code == 0, theirs.err
    assert "nothing of two/shop/orders was there" in theirs.out
    assert await shop.execute("SELECT identity FROM tablewatcher.watcher") == [("one/shop/orders",)]


async def test_destroy_says_that_a_ring_is_kept(tmp_path: Path, shop: Database) -> None:
    kept, gone = (
        write(tmp_path / policy, manifest(database=None, deletionPolicy=policy)) for policy in ("Retain", "Delete")
    )
    rings = "SELECT count(*) FROM pg_tables WHERE schemaname = 'tablewatcher' AND tablename LIKE 'ring_%'"
    assert (await tablewatcher("apply", "-f", kept, "--dsn", shop.dsn)).code == 0
    first, again = [await tablewatcher("destroy", "-f", kept, "--dsn", shop.dsn) for _ in range(2)]
    stays = "the ring stays, with what it holds (deletionPolicy: Retain)\n"
    assert (first.code, first.out) == (0, f"shop/orders: removed, 1 step; {stays}")
    assert (again.code, again.out) == (0, f"shop/orders: nothing else of local/shop/orders was there; {stays}")
    assert await shop.execute(rings) == [(3,)]
    stands = await tablewatcher("status", "-f", kept, "--dsn", shop.dsn)
    assert "capture: nothing is captured, and the ring keeps what was" in stands.out, stands.out
    assert (await tablewatcher("destroy", "-f", gone, "--dsn", shop.dsn)).out.startswith("shop/orders: removed, ")
    assert await shop.execute(TRACES) == [(0,)]
    nothing = await tablewatcher("destroy", "-f", kept, "--dsn", shop.dsn)
    assert nothing.out == "shop/orders: nothing of local/shop/orders was there (--instance says whose)\n"


@pytest.mark.parametrize("command", ["apply", "plan", "destroy", "listen", "run"])
async def test_a_connection_string_that_cannot_be_read(orders: Path, command: str) -> None:
    answer = await tablewatcher(command, "-f", orders, "--dsn", "postgresql://shop:hunter%zz2@h/x")
    assert answer.code == 2
    assert "--dsn (or TABLEWATCHER_DSN) cannot be read" in answer.err
    assert "leave out parameters that libpq does not know" in answer.err
    assert answer.err.count("cannot be read") == 1, "said once, however many watchers there are"
    assert "hunter" not in answer.out + answer.err
    assert answer.seconds < UNREACHABLE_PATIENCE, "it was tried again"


async def test_run_forwards_the_good_watcher_beside_a_bad_one(
    shop: Database,
    stream: Stream,
    tmp_path: Path,
    free_port: Callable[[], int],
    eventually: Callable[..., Awaitable[Any]],
) -> None:
    sink = {"nats": {"servers": [stream.url], "subject": f"{stream.prefix}.{{action}}"}}
    bad, good = manifest("a-bad", table={"name": "nothing"}, sink=sink), manifest("b-good", sink=sink)
    files, port = write(tmp_path / "manifests", bad, good), free_port()

    async def watched() -> int:
        query = "SELECT count(*) FROM pg_trigger WHERE tgrelid = 'orders'::regclass AND NOT tgisinternal"
        return int((await shop.execute(query))[0][0])

    words = ("run", "-f", files, "--dsn", shop.dsn, "--http-port", port, "-o", "json")
    async with running(PROGRAM, *words) as listener:
        await eventually(watched, 40)
        await shop.execute("INSERT INTO orders VALUES (1, 'new', 5)")
        (stored,) = await stream.messages(1, 40)
        assert json.loads(stored.data)["source"] == "/namespaces/shop/tablewatchers/b-good"
    told = {each["watcher"]: each for each in json.loads(listener.out)}
    assert told["shop/a-bad"]["reason"] == "TableNotFound"
    assert told["shop/b-good"]["changed"] is True


@pytest.mark.parametrize("option", ["--http-allow", "--http-deny"])
async def test_a_place_that_is_none_is_refused_by_name(orders: Path, option: str) -> None:
    answer = await tablewatcher("listen", "-f", orders, option, "10.0.0.1/8")
    assert answer.code == 2
    assert option in answer.err
    assert "Traceback" not in answer.err


@pytest.mark.parametrize("command", ["plan", "apply"])
async def test_a_person_sees_how_far_it_is_and_a_program_sees_json_only(
    shop: Database, stream: Stream, tmp_path: Path, command: str
) -> None:
    sink = {"nats": {"servers": [stream.url], "subject": f"{stream.prefix}.{{action}}"}}
    files = write(tmp_path / "manifests", *(manifest(f"orders-{nth}", sink=sink) for nth in range(3)))
    words = (PROGRAM, command, "-f", files, "--dsn", shop.dsn, "-o", "json")
    with terminal(100) as screen:
        with started(*words, stderr=screen.keyboard, TERM="xterm-256color", COLUMNS="100") as program:
            assert await program.ended(90) == 0
        shown = await screen.finished()
    assert [found["ok"] for found in json.loads(program.out)] == [True] * 3
    assert "shop/orders-2" in shown
    assert "/3" in shown


async def test_two_watchers_of_one_name_and_the_files_they_are_in(shop: Database, tmp_path: Path) -> None:
    files = write(tmp_path / "manifests", manifest())
    (files / "copy.yaml").write_text(json.dumps(manifest()))
    answer = await tablewatcher("validate", "-f", files)
    assert answer.code == 2
    for said in ("declared more than once", "copy.yaml", "orders.yaml"):
        assert said in answer.err
    assert not answer.out
    (files / "copy.yaml").unlink()
    assert (await tablewatcher("validate", "-f", files, "-f", files / "orders.yaml")).code == 0


async def test_listen_runs_no_module_of_the_directory_it_is_started_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("yaml", "json", "secrets"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit(7)")
    monkeypatch.chdir(tmp_path)
    answer = await tablewatcher("listen", "-f", tmp_path / "absent.yaml", "--http-port", str(free_port()))
    assert (answer.code, "absent.yaml cannot be read" in answer.err) == (2, True)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("validate",), "--file"),
        (("plan", "-f", "{files}", "--instance", ""), "--instance"),
        (("apply", "-f", "{files}", "--bogus"), "--bogus"),
        (("parked", "list", "-f", "{files}", "--limit", "0"), "--limit"),
        (("replay", "-f", "{files}", "--since", "never"), "--since"),
        (("run", "-f", "{files}", "--http-allow", "10.0.0.1/8"), "--http-allow"),
        (("aply",), "apply"),
    ],
    ids=lambda found: found if isinstance(found, str) else found[0],
)
async def test_a_mistake_in_the_options_is_told_as_json_too(orders: Path, words: tuple[str, ...], said: str) -> None:
    answer = await tablewatcher(*(word.format(files=orders) for word in words), "-o", "json")
    found = fault(answer, "options")
    assert (answer.code, found["reason"]) == (2, "SpecInvalid")
    assert said in found["message"]
    assert "Usage:" in answer.err, "people are told as before"


async def test_no_mistake_in_the_options_tells_a_password(orders: Path) -> None:
    answer = await tablewatcher("validate", "-f", orders, "postgresql://ada:s3cret@db/shop", "-o", "json")
    assert "ada:***@db" in fault(answer, "options")["message"]
    assert "s3cret" not in answer.out + answer.err


async def test_nor_does_one_in_those_of_a_listener(orders: Path) -> None:
    answer = await tablewatcher("listen", "-f", orders, "postgresql://ada:s3cret@db/shop")
    assert (answer.code, answer.out) == (2, "")
    assert "ada:***@db" in answer.err
    assert "s3cret" not in answer.err


async def test_an_option_before_the_command_is_such_a_mistake(orders: Path) -> None:
    answer = await tablewatcher("--output=json", "validate", "-f", orders)
    assert (answer.code, fault(answer, "options")["reason"]) == (2, "SpecInvalid")


async def test_a_mistake_in_the_options_is_told_to_people_alone_where_no_json_is_asked_for(orders: Path) -> None:
    answer = await tablewatcher("validate", "-f", orders, "-o", "yaml")
    assert (answer.code, answer.out) == (2, "")
    assert "Usage:" in answer.err


@pytest.mark.parametrize(
    ("words", "check"),
    [(("-f", "{nowhere}"), "manifest"), (("-f", "{orders}", "--dsn", "this is none"), "connection")],
    ids=["file", "connection"],
)
async def test_doctor_gives_checks_also_where_it_cannot_begin(
    orders: Path, tmp_path: Path, words: tuple[str, ...], check: str
) -> None:
    places = {"orders": orders, "nowhere": tmp_path / "none.yaml"}
    answer = await tablewatcher("doctor", *(word.format(**places) for word in words), "-o", "json")
    (found,) = json.loads(answer.out)
    (line,) = found["checks"]
    assert (answer.code, line["check"], line["level"], line["reason"]) == (2, check, "fail", "SpecInvalid")
    assert line["text"] == found["message"]


@pytest.mark.parametrize(
    ("change", "code", "watcher", "reason"),
    [
        ({"database": None}, 2, "demo", "SpecInvalid"),
        ({"columns": ["absent"], "triggerColumns": ["status"]}, 7, "shop/orders", "ColumnNotFound"),
    ],
    ids=["manifest", "apply"],
)
async def test_demo_tells_as_json_too_why_it_cannot_be_played(
    tmp_path: Path, change: dict[str, Any], code: int, watcher: str, reason: str
) -> None:
    answer = await tablewatcher("demo", "-f", write(tmp_path / "manifests", manifest(**change)), "-o", "json")
    found = json.loads(answer.out)
    assert (answer.code, found["watcher"], found["ok"], found["reason"]) == (code, watcher, False, reason)
    assert found["message"].splitlines()[0] in answer.err, "people are told as before"


@pytest.mark.parametrize(
    ("kind", "sink", "changes"),
    [
        (
            "NATS",
            {
                "servers": ["tls://nats.example.com"],
                "subject": "shop.{table}.{action}",
                "auth": {"credsSecretRef": {"name": "nats", "key": "user.creds"}},
                "tls": {"caRef": {"kind": "Secret", "name": "nats", "key": "ca.crt"}},
            },
            {"format": "Binary"},
        ),
        (
            "HTTP",
            {
                "urlSecretRef": {"name": "hook", "key": "url"},
                "tls": {"clientCertSecretRef": {"name": "hook"}},
                "batch": {"maxEvents": 10, "lingerMilliseconds": 20},
            },
            {"triggerColumns": ["status"]},
        ),
    ],
    ids=["NATS with any column", "HTTP in batches"],
)
async def test_demo_plays_a_manifest_of_ones_own(
    tmp_path: Path, kind: str, sink: dict[str, Any], changes: dict[str, Any]
) -> None:
    own = manifest(sink={kind.lower(): sink}, **changes)
    path = tmp_path / "own.json"
    path.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": [own]}))
    answer = await tablewatcher("demo", "-f", path, "-o", "json")
    found = json.loads(answer.out)
    assert (answer.code, found["ok"]) == (0, True), answer.err
    assert [(each["sink"], each["delivered"] > 200) for each in found["sinks"]] == [(kind, True)]
    assert (found["unwatched"] == 0) == ("triggerColumns" not in changes)


@pytest.mark.parametrize(
    ("table", "code", "reason", "words"),
    [
        ("id int REFERENCES nowhere", 2, "SpecInvalid", 'orders.sql: relation "nowhere" does not exist'),
        ("id int PRIMARY KEY, status text", 2, "SpecInvalid", "no customer, note, total"),
        (
            "id serial PRIMARY KEY, customer text CHECK (customer = 'ada'), total numeric, status text, note text",
            10,
            "ManualActionRequired",
            "23514",
        ),
    ],
    ids=["SQL", "a column less", "a check"],
)
async def test_demo_says_what_is_wrong_with_a_table_of_ones_own(
    tmp_path: Path, table: str, code: int, reason: str, words: str
) -> None:
    own = write(tmp_path / "own", manifest())
    (own / "orders.sql").write_text(f"CREATE TABLE public.orders ({table})")
    answer = await tablewatcher("demo", "-f", own, "-o", "json")
    found = json.loads(answer.out)
    assert (answer.code, found["reason"]) == (code, reason), answer.err
    assert words in found["message"]
    assert "Traceback" not in answer.err


async def test_doctor_lays_a_bad_connection_string_to_no_manifest(orders: Path) -> None:
    answer = await tablewatcher("doctor", "-f", orders, "--dsn", "this is none")
    assert answer.code == 2
    assert "fail  connection " in answer.out
    assert "manifest" not in answer.out


async def test_listen_says_that_it_waits_for_apply(
    shop: Database, orders: Path, eventually: Callable[..., Awaitable[Any]]
) -> None:
    async with running(PROGRAM, "listen", "-f", orders, "--dsn", shop.dsn, "--http-port", free_port()) as listener:
        await eventually(lambda: "nothing is applied for local/shop/orders" in listener.err, 40)
        looks = set[tuple[Any, ...]]()

        async def has_looked_again() -> bool:
            looks.update(
                await shop.execute(
                    "SELECT query_start FROM pg_stat_activity"
                    " WHERE datname = current_database() AND application_name = 'tablewatcher listener writer'"
                )
            )
            return len(looks) > 3

        await eventually(has_looked_again, 40)
    assert listener.err.count("nothing is applied") == 1, "said once, however long it waits"


async def test_demo_says_what_is_wrong_with_manifests_of_ones_own(tmp_path: Path) -> None:
    """Before it starts a server, and not in Python: it needs to know which Secret to write."""
    files = write(tmp_path / "manifests", manifest(database=None))
    answer = await tablewatcher("demo", "-f", files)
    assert answer.code == 2
    assert "spec.database.secretRef: required" in answer.err
    assert "Traceback" not in answer.err
    assert answer.out == ""


async def test_listen_says_that_no_manifest_is_there(tmp_path: Path, eventually: Callable[..., Awaitable[Any]]) -> None:
    """Empty for now, or the wrong directory: it waits, and says so once."""
    nowhere = f"postgresql://127.0.0.1:{free_port()}/nowhere"
    async with running(PROGRAM, "listen", "-f", tmp_path, "--dsn", nowhere, "--http-port", free_port()) as listener:
        await eventually(lambda: "no TableWatcher manifest there" in listener.err, 40)
        (tmp_path / "README.md").write_text("what is to come")
        write(tmp_path, manifest())
        await eventually(lambda: "shop/orders" in listener.err, 40)
    assert listener.err.count("no TableWatcher manifest") == 1


async def test_listen_tells_a_mistake_once(tmp_path: Path) -> None:
    files = write(tmp_path / "manifests", manifest(actions=["upsert"])) / "orders.yaml"
    answer = await tablewatcher("listen", "-f", files, "--http-port", str(free_port()))
    assert (answer.code, answer.err.count("must be insert, update, delete")) == (2, 1), answer.err
