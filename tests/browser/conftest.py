"""A headless Chromium for tests of pages; `make test-browser` installs what it takes and runs them."""

import json
import shutil

import pytest

ARGUMENTS = (
    "--headless=new",
    "--no-sandbox",  # which root needs
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    # Whatever is asked for over the network is asked for by the page.
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
)


@pytest.fixture(scope="session")
def chromium():
    """Starts Debian's Chromium and its driver, once for all tests."""
    from selenium import webdriver

    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if program is None or driver is None:
        pytest.fail("chromium and chromedriver are not installed; `make test-browser` says how")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for argument in ARGUMENTS:
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = webdriver.Chrome(options, webdriver.ChromeService(driver))
    yield browser
    browser.quit()


@pytest.fixture
def browser(chromium):
    """Chromium with an empty page of 1000 x 900 pixels; what a page says of errors fails the test."""
    chromium.get("about:blank")
    size = {"width": 1000, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    for log in ("browser", "performance"):
        chromium.get_log(log)  # which forgets what it gave
    yield chromium
    assert [entry["message"] for entry in chromium.get_log("browser") if entry["level"] == "SEVERE"] == []


@pytest.fixture
def requested(browser):
    """Lists what the browser has asked for since the test began or the list was last read."""

    def addresses():
        events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
        return [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]

    return addresses


@pytest.fixture
def hover(browser):
    """Moves the mouse over the middle of an element, or to pixels (right, down) of its middle."""
    from selenium.webdriver import ActionChains

    def move(element, right=0, down=0):
        ActionChains(browser, duration=0).move_to_element_with_offset(element, right, down).perform()

    return move


@pytest.fixture
def press(browser):
    """Presses keys, by their names in selenium's Keys."""
    from selenium.webdriver import ActionChains, Keys

    def keys(*names):
        ActionChains(browser, duration=0).send_keys(*(getattr(Keys, name) for name in names)).perform()

    return keys
