"""The page of `relearn report` in a browser: nothing fails, tables sort, curves toggle, links open records.

Needs Debian's package chromium, which tests/helpers/browser.py drives without a window.
"""

import os
from pathlib import Path

import pytest

from helpers import results
from helpers.browser import Browser, executable
from relearn import __main__

pytestmark = pytest.mark.skipif(executable() is None, reason="needs a browser: apt-get install chromium")
SCRIPT = "document.title = 'taken'"
HOSTILE = [f'<img src=x onerror="{SCRIPT}">', f"</script><script>{SCRIPT}</script>", "c", "d"]
ROWS = "[...document.querySelector('table.sortable').tBodies[0].rows]"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder of a project with results and both pages."""
    folder, before = tmp_path_factory.mktemp("report"), os.getcwd()
    os.chdir(folder)
    try:
        results.make(classes=HOSTILE)
        assert __main__.main(["report"]) == 0
        assert __main__.main(["diff", ".", ".", "--out", "diff.html"]) == 0
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def browser(tmp_path):
    with Browser(tmp_path / "profile") as found:
        yield found
        assert found.errors == []


@pytest.fixture
def page(browser, made):
    """The report in the browser."""
    browser.open((made / "results/report.html").as_uri())
    return browser


def column(page: Browser, place: int) -> list[str]:
    """What stands in a column of the first table."""
    return page.run(f"{ROWS}.map(row => row.cells[{place}].innerText)")


def click(page: Browser, selector: str) -> None:
    """Click at the middle of an element, as a hand would."""
    page.run(f"document.querySelector({selector!r}).scrollIntoView({{block: 'center'}})")
    x, y = page.run(
        f"(r => [r.x + r.width / 2, r.y + r.height / 2])(document.querySelector({selector!r}).getBoundingClientRect())"
    )
    page.press(x, y)


def shown(page: Browser) -> list[str]:
    """The curves that can be seen, as poison/method/seed."""
    script = "[...document.querySelectorAll('.curve')].filter(one => one.getClientRects().length)"
    return page.run(f"{script}.map(one => [one.dataset.poison, one.dataset.method, one.dataset.seed].join('/'))")


def test_a_table_sorts_by_number_and_back(page):
    erm = "table.sortable th:nth-child(4) button"  # of the table accuracy: dataset, arch, poison, erm, pst, n
    before = column(page, 3)
    assert before == ["92.0 ± 1.4", "30.0 ± 2.8", "9.5 ± 0.7"]
    click(page, erm)
    assert column(page, 3) == ["9.5 ± 0.7", "30.0 ± 2.8", "92.0 ± 1.4"]  # by text 9.5 would come last
    assert column(page, 2) == ["tap_4", "lsp", "clean"]
    assert page.run("document.querySelector('th:nth-child(4)').ariaSort") == "ascending"
    click(page, "table.sortable th:nth-child(5) button")
    assert column(page, 4) == ["61.0 ± 1.4", "91.0 ± 1.4", "100.0 ± 0.0"]
    assert page.run("document.querySelector('th:nth-child(4)').ariaSort") == "none"
    click(page, "table.sortable th:nth-child(5) button")
    assert column(page, 4) == ["100.0 ± 0.0", "91.0 ± 1.4", "61.0 ± 1.4"]
    click(page, "table.sortable th:nth-child(5) button")
    assert column(page, 3) == before
    click(page, "table.sortable th:nth-child(3) button")
    assert column(page, 2) == ["clean", "lsp", "tap_4"]


def test_gaps_stay_last(page):
    page.run("document.querySelector('table.sortable td:nth-child(4)').removeAttribute('data-sort')")  # of clean
    for expected in (["9.5 ± 0.7", "30.0 ± 2.8", "92.0 ± 1.4"], ["30.0 ± 2.8", "9.5 ± 0.7", "92.0 ± 1.4"]):
        click(page, "table.sortable th:nth-child(4) button")
        assert column(page, 3) == expected


def test_curves_are_toggled(page):
    assert len(shown(page)) == 12
    click(page, "input[data-axis=method][value=erm]")
    assert len(shown(page)) == 6 and all("/pst/" in one for one in shown(page))
    click(page, "input[data-axis=seed][value='1']")
    assert shown(page) == ["clean/pst/0", "lsp/pst/0", "tap_4/pst/0"]
    click(page, "input[data-axis=poison][value=lsp]")
    assert shown(page) == ["clean/pst/0", "tap_4/pst/0"]
    assert page.run("document.querySelectorAll('.panel:not(.off)').length") == 2
    click(page, "fieldset:nth-child(2) [data-all=none]")
    assert shown(page) == []
    click(page, "fieldset:nth-child(2) [data-all=all]")
    click(page, "fieldset:nth-child(1) [data-all=all]")
    click(page, "fieldset:nth-child(3) [data-all=all]")
    assert len(shown(page)) == 12


def test_the_point_under_the_pointer_is_read_out(page):
    click(page, "input[data-axis=seed][value='1']")
    page.run("document.querySelector('.panel svg').scrollIntoView({block: 'center'})")
    place = "document.querySelector('.panel a.curve[data-method=erm] polyline')"
    x, y = page.run(
        f"(p => {{ const q = p.points[2].matrixTransform(p.getScreenCTM()); return [q.x, q.y]; }})({place})"
    )
    page.press(x, y, "move")
    page.wait("document.querySelector('.readout').innerText.length > 5")
    assert page.run("document.querySelector('.readout').innerText") == "erm, seed 0, epoch 3: 91.0 %"


def test_a_number_leads_to_its_records(page):
    closed = "document.querySelectorAll('details[id][open]').length"
    assert page.run(closed) == 0
    click(page, "table.sortable td:nth-child(4) a")
    page.wait("location.hash === '#cell-digits-clean-cnn-erm'")
    page.wait(f"{closed} === 2")
    top = page.run("document.querySelector(location.hash).getBoundingClientRect().top")
    assert 0 <= top < page.run("innerHeight")
    assert '"accuracy": 91.0' in page.run("document.querySelector('#cell-digits-clean-cnn-erm-0 pre').innerText")


def test_nothing_is_loaded_and_names_run_no_script(page, made):
    assert page.run("document.title") == "relearn: digits"
    address = (made / "results/report.html").as_uri()
    assert [one for one in page.requests if not one.startswith("data:image/png;base64,") and one != address] == []
    assert page.run("[...document.images].every(one => one.complete && one.naturalWidth > 0)")
    assert HOSTILE[0] in page.run("document.querySelector('.labels').textContent")


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [360, 800, 1280])
def test_the_page_fits_every_width_and_can_be_read(page, width, dark):
    page.resize(width, 900, dark)
    assert page.run("document.documentElement.scrollWidth") <= width
    ink, paper = (page.run(f"getComputedStyle(document.body).{name}") for name in ("color", "backgroundColor"))
    assert abs(luma(ink) - luma(paper)) > 120 and (luma(paper) < 60) == dark


def luma(colour: str) -> float:
    """The brightness of 'rgb(r, g, b)', of 255."""
    red, green, blue = (float(part) for part in colour[4:-1].split(","))
    return 0.299 * red + 0.587 * green + 0.114 * blue


def test_the_page_of_a_comparison(browser, made: Path):
    browser.open((made / "diff.html").as_uri())
    assert len(column(browser, 0)) == 6
    click(browser, "table.sortable th:nth-child(5) button")
    assert column(browser, 4) == ["9.50", "30.00", "61.00", "91.00", "92.00", "100.00"]
