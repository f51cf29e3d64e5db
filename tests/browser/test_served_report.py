"""A report from the server of `excel up` in a real browser: it works, and the UI's key is out of its reach."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect import settings

from artifacts.report import write_report
from flows.local.access import make_credential
from flows.local.reports import report_link
from tests.browser.conftest import console_errors
from tests.report_view import example_view
from tests.served import served_reports

TRY = """const done = arguments[0];
    const tried = attempt => { try { return [attempt()] } catch (error) { return error.name } };
    const answers = [tried(() => localStorage.length), tried(() => document.cookie), origin];
    const ask = path => fetch(path).then(answer => answer.status, error => error.name);
    Promise.all(['/api/flows', 'data.json', 'https://example.org/'].map(ask)).then(asked => done([...answers, ...asked]))"""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a report with a picture and data beside it."""
    store: Path = tmp_path_factory.mktemp("served") / "store"
    folder = store / "report" / ("ab" * 16)
    folder.mkdir(parents=True)
    page = write_report(folder, example_view())
    (folder / "stage.json").write_text("{}")
    (folder / "data.json").write_text("{}")
    (store / "prefect").mkdir(mode=0o700)
    credential = make_credential(store / "prefect")
    with (
        settings.temporary_settings({settings.PREFECT_HOME: store / "prefect", settings.PREFECT_API_URL: None}),
        served_reports(store, credential) as port,
    ):
        yield f"http://127.0.0.1:{port}{report_link(store, page)}"


def test_it_works_as_from_a_file(chromium: Any, address: str) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    chromium.get(address)
    assert [error for error in console_errors(chromium) if "favicon" not in error] == []
    pictures = chromium.execute_script("return [...document.images].map(image => image.complete && image.naturalWidth)")
    assert pictures and all(pictures)
    tables = chromium.find_elements(By.CSS_SELECTOR, "details > summary")
    assert tables, "the page folds its tables"
    before = chromium.execute_script("return document.querySelectorAll('details[open]').length")
    tables[0].send_keys(Keys.ENTER)
    assert chromium.execute_script("return document.querySelectorAll('details[open]').length") != before


def test_it_reads_neither_the_uis_key_nor_its_api(chromium: Any, address: str) -> None:
    chromium.get(address)
    storage, cookie, origin, api, data, elsewhere = chromium.execute_async_script(TRY)
    assert storage == cookie == "SecurityError" and origin == "null"
    assert api == elsewhere == "TypeError" and data in (200, "TypeError")  # the page itself may refuse more than its server
