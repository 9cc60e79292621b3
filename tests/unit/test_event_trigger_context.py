"""Which function of theirs an error comes from, whatever language the server says it in (lc_messages)."""

from __future__ import annotations

import pytest

from tablewatcher.postgres.install.as_made import called_in

# As the catalogs of PostgreSQL 15 have it.
LINES = [
    "PL/pgSQL function {} line 1 at RAISE",
    "PL/pgSQL-Funktion {} Zeile 1 bei RAISE",
    "fonction PL/pgSQL {}, ligne 1 à RAISE",
    "PL/pgSQL関数{}の1行目 - RAISE",
    'PL/pgSQL 함수 "{}" 의 1번째 RAISE',
    "{} PL/pgSQL fonksiyonu, 1. satır, RAISE içinde",
    "在RAISE的第1行的PL/pgSQL函数{}",
]


@pytest.mark.parametrize("line", LINES)
@pytest.mark.parametrize("name", ["public.f()", "f()", '"Our Own".f()'])
def test_the_function_is_found_in_every_language(line: str, name: str) -> None:
    context = f"SQL statement\n{line.format(name)}\n"
    assert called_in(context, ["g()", "f()"]) == "f()"


@pytest.mark.parametrize("line", LINES)
def test_another_one_is_none_of_them(line: str) -> None:
    assert called_in(line.format("public.buf()"), ["f()"]) is None
    assert called_in(line.format('public."Our f"()'), ['"Our f"()']) == '"Our f"()'
