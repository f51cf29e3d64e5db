"""Reports over HTTP, as the server of `excel up` gives them: to who has the link, and nothing else of the store."""

import http.client
from urllib.parse import quote

import pytest
from prefect import settings

from flows.local.access import make_credential
from flows.local.reports import PREFIX, report_link
from tests.served import served_reports

KEY, OTHER = "ab" * 16, "cd" * 16
PAGE = b"<!doctype html><title>report</title>"


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Two complete reports and a comparison with what may lie beside a page, an incomplete one, and what nobody may have."""
    store = tmp_path_factory.mktemp("served") / "store"
    for stage, key in (("report", KEY), ("report", OTHER), ("compare", KEY)):
        folder = store / stage / key
        (folder / "images" / "train").mkdir(parents=True)
        (folder / "index.html").write_bytes(PAGE)
        (folder / "images" / "train" / "a b.png").write_bytes(b"png")
        for name in ("stage.json", ".hidden.html", "weights.safetensors", "table.parquet", "no_suffix"):
            (folder / name).write_text("not to be served")
    (store / "report" / ("ef" * 16)).mkdir()
    (store / "report" / ("ef" * 16) / "index.html").write_bytes(PAGE)
    for folder in (store / "describe" / KEY, store / "records"):
        folder.mkdir(parents=True)
        (folder / "secret.json").write_text("secret")
        (folder / "stage.json").write_text("{}")
    (store / "prefect").mkdir(mode=0o700)
    (store / "prefect" / "page.html").write_text("secret")
    (store / "report" / KEY / "link.html").symlink_to(store / "prefect" / "page.html")
    (store / "report" / KEY / "folder").symlink_to(store / "records")
    return store


@pytest.fixture(scope="module")
def credential(store):
    return make_credential(store / "prefect")


@pytest.fixture(scope="module")
def ask(store, credential):
    """(method, path, headers) → (status, headers, body), of a server with the guard before it."""

    with served_reports(store, credential) as port:

        def ask(path, method="GET", **headers):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            connection.request(method, path, headers=headers)
            answer = connection.getresponse()
            body = answer.read()
            connection.close()
            return answer.status, dict(answer.getheaders()), body

        yield ask


@pytest.fixture(scope="module")
def link(store, credential):
    """The address of a file of an output, as artifacts have it."""
    values = {settings.PREFECT_HOME: store / "prefect", settings.PREFECT_API_URL: "http://127.0.0.1:4200/api"}

    def link(*names, stage="report", key=KEY):
        with settings.temporary_settings(values):
            return report_link(store, store.joinpath(stage, key, *names))

    return link


def test_who_has_the_link_sees_the_page_and_what_lies_beside_it(ask, link):
    status, headers, body = ask(link("index.html"))
    assert (status, body, headers["content-type"]) == (200, PAGE, "text/html; charset=utf-8")
    page = link("index.html").rpartition("/")[0]
    assert ask(f"{page}/images/train/a%20b.png")[::2] == (200, b"png") == ask(link("images", "train", "a b.png"))[::2]
    assert ask(link("index.html"), "HEAD")[0] == ask(link("index.html", stage="compare"))[0] == 200


def test_a_page_has_an_origin_of_its_own(ask, link):
    """With the UI's, a script in it could read the key that the UI keeps."""
    _, headers, _ = ask(link("index.html"))
    policy = headers["content-security-policy"]
    assert policy.startswith("sandbox ") and "allow-same-origin" not in policy and "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy and headers["referrer-policy"] == "no-referrer"
    assert headers["access-control-allow-origin"] == "null" and headers["x-content-type-options"] == "nosniff"
    assert ask(link("index.html"), Origin="null")[0] == 200 and ask("/api/flows", Origin="null")[0] == 403


@pytest.mark.parametrize("headers", [{"Host": "attacker.example"}, {"Origin": "http://attacker.example"}])
def test_other_names_and_pages_are_refused(ask, link, headers):
    assert ask(link("index.html"), **headers)[0] == 403


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_nothing_can_be_written(ask, link, method):
    assert ask(link("index.html"), method)[0] == 405


def test_without_the_capability_there_is_nothing(ask, link):
    capability = link("index.html").split("/")[2]
    wrong = [
        f"{PREFIX}report/{KEY}/index.html",
        f"{PREFIX}{'0' * 40}/report/{KEY}/index.html",
        f"{PREFIX}{capability[:-1]}/report/{KEY}/index.html",
        f"{PREFIX}{capability}/report/{OTHER}/index.html",
        f"{PREFIX}{capability}/benchmark/{KEY}/index.html",
        f"{PREFIX}%C3%A9{capability[1:]}/report/{KEY}/index.html",
        PREFIX,
        f"{PREFIX}{capability}/report/{KEY}/",
        f"{PREFIX}{capability}/report/{KEY}",
    ]
    assert [ask(path)[::2] for path in wrong] == [(404, b"No such report, or the link is of an earlier key")] * len(wrong)
    assert ask(link("index.html", key=OTHER))[0] == 200


def test_links_end_with_the_key(store, link):
    with served_reports(store, "excel:another-key-of-another-day") as port:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.request("GET", link("index.html"))
        assert connection.getresponse().status == 404
        connection.close()


@pytest.mark.parametrize(
    "name",
    [
        "../../../prefect/page.html", "%2e%2e/%2e%2e/%2e%2e/prefect/page.html", "..%2f..%2f..%2fprefect%2fpage.html",
        "images/../../../../prefect/page.html", "images/..%2f..%2f..%2f..%2frecords/secret.json",
        "..%5c..%5cprefect%5cpage.html",
        "//etc/passwd", "%2fetc%2fpasswd", "images//train/a%20b.png", "./index.html", "images/./train/a%20b.png",
        "index.html%00.png", "link.html", "folder/secret.json", "stage.json", ".hidden.html", "images/.x.png",
        "weights.safetensors", "table.parquet", "no_suffix", "images", "images/train", "nothing.html", "x" * 300 + ".html",
        "index.html/x.png",
    ],
)  # fmt: skip
def test_no_other_file_of_the_store_is_served(ask, link, name):
    page = link("index.html").rpartition("/")[0]
    status, _, body = ask(f"{page}/{name}")
    assert status == 404 and b"secret" not in body and b"not to be served" not in body


@pytest.mark.parametrize(("stage", "key"), [("describe", KEY), ("records", KEY), ("report", "ef" * 16), ("prefect", KEY)])
def test_only_finished_reports_are_served(ask, link, stage, key):
    """Not even by a capability that is right."""
    for name in ("index.html", "secret.json", "page.html"):
        assert ask(link(name, stage=stage, key=key))[0] == 404


def test_everything_else_goes_to_prefect(ask):
    assert ask("/api/flows")[2] == ask("/reports")[2] == b"prefect"


def test_a_link_is_for_the_stores_own_server_alone(store, credential, tmp_path):
    page, home = store / "report" / KEY / "index.html", store / "prefect"
    for changes in ({settings.PREFECT_HOME: tmp_path}, {settings.PREFECT_API_URL: "https://prefect.example/api"}):
        values = {settings.PREFECT_HOME: home, settings.PREFECT_API_URL: "http://127.0.0.1:4200/api"} | changes
        with settings.temporary_settings(values):
            assert report_link(store, page) == ""
    (tmp_path / "prefect").mkdir()
    with settings.temporary_settings({settings.PREFECT_HOME: tmp_path / "prefect"}):
        assert report_link(tmp_path, tmp_path / "report" / KEY / "index.html") == ""  # without a key there is no capability
    with settings.temporary_settings({settings.PREFECT_HOME: home, settings.PREFECT_API_URL: "http://localhost:4200/api"}):
        named = report_link(store, store / "report" / KEY / "a ü.html")
    assert named.endswith(quote("a ü.html")) and credential.partition(":")[2] not in named
