"""The report in headless Chromium: it draws itself without network, scrubs, sorts, and can be used by keys alone."""

import shutil

import pytest

from vspw_jax.classes import vspw
from vspw_jax.metrics import predictions, report, scores
from vspw_jax.metrics.shown_run import ShownRun

webdriver = pytest.importorskip("selenium.webdriver")
from selenium.common.exceptions import WebDriverException  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402
from urllib3.exceptions import HTTPError  # noqa: E402

FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-quic --host-resolver-rules=MAP\\ *\\ ~NOTFOUND"
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """Chromium, 1280 pixels wide."""
    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (program and driver):
        pytest.skip("Debian's chromium and chromium-driver are not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for flag in FLAGS.replace("\\ ", "\0").split():
        options.add_argument(flag.replace("\0", " "))
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('chromium')}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    try:
        started = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    except (WebDriverException, HTTPError, OSError) as error:  # A machine without memory to spare, for one.
        pytest.skip(f"Chromium does not start: {str(error).splitlines()[0]}")
    started.set_window_size(1280, 1000)
    yield started
    started.quit()


@pytest.fixture(scope="module")
def pages(tmp_path_factory, truth, shifted, more_shifted):
    """Addresses of a page of one run and of one of two."""
    runs = []
    for name, folder in (("one", shifted), ("<b>two</b>", more_shifted)):
        folder = predictions.Folder(folder)
        counts = predictions.count(truth, folder, threads=2)
        runs.append(ShownRun(name, folder, counts, scores.summarise(counts, vspw.classes())))
    folder = tmp_path_factory.mktemp("pages")
    for number in (1, 2):
        report.write(folder / f"{number}.html", truth, runs[:number], "python -m vspw_jax.metrics")
    return [(folder / f"{number}.html").as_uri() for number in (1, 2)]


@pytest.fixture
def page(browser, pages):
    browser.get(pages[0])
    return browser


def texts(browser, selector):
    return [found.text for found in browser.find_elements(By.CSS_SELECTOR, selector)]


def one(browser, selector):
    return browser.find_element(By.CSS_SELECTOR, selector)


def test_it_draws_itself_without_an_error(page, pages):
    assert "Evaluation of one" in one(page, "h1").text
    # Without flow there is no TC, of 10 frames no VC16.
    assert len(texts(page, ".card")) == 4 and len(texts(page, ".clip")) == 3
    page.get(pages[1])
    assert "<b>two</b>" in one(page, "h1").text and not page.find_elements(By.CSS_SELECTOR, "h1 b")
    assert "difference" in one(page, "#all-scores").text
    assert page.get_log("browser") == []


def test_the_scrubber_follows_the_arrow_keys(page):
    slider, output = one(page, ".clip .scrubber input"), one(page, ".clip output")
    picture = lambda: one(page, ".clip .stack img.photo").get_attribute("src")
    first = picture()
    assert output.text.startswith("00000001")
    slider.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert output.text.startswith("00000003") and picture() != first
    assert slider.get_attribute("aria-valuetext").startswith("frame 00000003")
    slider.send_keys(Keys.ARROW_LEFT, Keys.HOME)
    assert output.text.startswith("00000001") and picture() == first
    slider.send_keys(Keys.END)
    assert output.text.startswith("00000010")
    assert one(page, ".clip .cursor").get_attribute("x1") == "1000"


def test_a_clip_plays_and_pauses(page):
    button = one(page, ".clip .scrubber button")
    button.send_keys(Keys.SPACE)
    assert button.text == "Pause"
    page.execute_async_script(
        """const done = arguments[0], slider = document.querySelector('.clip .scrubber input');
        const wait = () => (slider.value !== '0' ? done() : setTimeout(wait, 20)); wait();"""
    )
    button.send_keys(Keys.SPACE)
    assert button.text == "Play"


def test_a_picture_names_the_classes_under_the_pointer(page):
    script = """const stack = document.querySelectorAll('.clip .stack')[1], box = stack.getBoundingClientRect();
        stack.dispatchEvent(new PointerEvent('pointermove',
            {clientX: box.left + 0.25 * box.width, clientY: box.top + 0.1 * box.height}));
        return document.querySelector('.clip .readout').textContent;"""
    loaded = "return [...document.querySelectorAll('.clip .stack img')].every((image) => image.complete)"
    WebDriverWait(page, 60).until(lambda _: page.execute_script(loaded))
    said = page.execute_script(script)
    assert said.startswith("truth: ") and "prediction: " in said and "?" not in said


@pytest.mark.parametrize(("title", "order"), [("IoU %", float), ("pixels", float), ("class", str)])
def test_columns_sort_both_ways_by_keyboard(page, title, order):
    (button,) = page.find_elements(By.XPATH, f'//*[@id="class-table"]//th/button[text()="{title}"]')
    head = button.find_element(By.XPATH, "..")
    column = page.execute_script("return [...arguments[0].parentElement.children].indexOf(arguments[0]) + 1", head)

    def values():
        cells = texts(page, f"#class-table tbody tr > :nth-child({column})")
        found = [None if cell == "–" else order(cell.replace(",", "")) for cell in cells]
        return [value for value in found if value is not None]

    seen = set()
    for _ in range(2):
        button.send_keys(Keys.ENTER)
        direction = head.get_attribute("aria-sort")
        seen.add(direction)
        assert values() == sorted(values(), reverse=direction == "descending")
        assert len(page.find_elements(By.CSS_SELECTOR, "#class-table th[aria-sort]")) == 1
    assert seen == {"ascending", "descending"}


def test_the_matrix_says_what_is_in_a_cell(page):
    matrix, readout = one(page, "#matrix"), one(page, "#confusion-readout")
    matrix.send_keys(Keys.ARROW_RIGHT)
    own = page.execute_script("return JSON.parse(document.getElementById('data').textContent).runs[0].confusion")
    assert f"{own['pixels'][0][0]:,} pixels" in readout.text
    matrix.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_DOWN, Keys.ARROW_DOWN, Keys.ARROW_UP)
    assert f"{own['pixels'][1][1]:,} pixels" in readout.text


def test_tab_reaches_everything_in_order_and_shows_where_it_is(page):
    reached = []
    for _ in range(60):
        page.switch_to.active_element.send_keys(Keys.TAB)
        here = page.switch_to.active_element
        reached.append(here.get_attribute("id") or here.tag_name)
        if here.tag_name not in ("body", "html"):
            assert here.value_of_css_property("outline-style") != "none", here.get_attribute("outerHTML")[:200]
        if "matrix" in reached:
            break
    assert reached[0] == "a" and reached.index("opacity") < reached.index("class-table") < reached.index("matrix")
    assert reached.count("input") == 3


def test_it_fits_a_phone_and_follows_light_and_dark(page):
    colours = []
    for scheme in ("light", "dark"):
        page.execute_cdp_cmd(
            "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        )
        colours.append(one(page, "body").value_of_css_property("background-color"))
    size = {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    width = page.execute_script("return document.documentElement.scrollWidth")
    page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert colours[0] != colours[1] and width <= 390
