"""map.html in a browser: it opens, zooms, picks answers, by mouse and keyboard, at any width.

A headless Chromium is driven through the DevTools protocol. It can look up no host name.
"""

import base64
import io
import itertools
import json
import shutil
import subprocess
import time
import urllib.request
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from vgeo.locate.output import write_map
from vgeo.photos.tables import read_photos

websocket = pytest.importorskip("websocket", reason="websocket-client drives the browser")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
CHROMIUM = next(filter(None, map(shutil.which, BROWSERS)), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason=f"needs a browser: {' or '.join(BROWSERS)}"),
]
SECONDS = 120  # that a busy machine may take for a step
PHONE = (360, 740)
KEYS = {"Tab": 9, "Enter": 13}


class Browser:
    """A page of a headless Chromium.

    Attributes
    ----------
    errors : what the page's scripts threw, and what the browser logged as an error.
    requests : the addresses that the page asked for.
    """

    def __init__(self, profile):
        network = ("--disable-background-networking", "--host-resolver-rules=MAP * ~NOTFOUND")
        options = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", *network)
        port = ("--remote-debugging-port=0", f"--user-data-dir={profile}", "about:blank")
        silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen([CHROMIUM, *options, *port], **silent)
        self.errors, self.requests, self.numbers = [], [], itertools.count(1)
        try:
            written = profile / "DevToolsActivePort"
            wait(lambda: written.exists() and written.read_text().count("\n"))
            address = f"http://127.0.0.1:{written.read_text().split()[0]}/json"
            with urllib.request.urlopen(address, timeout=SECONDS) as answer:
                (page,) = (one for one in json.load(answer) if one["type"] == "page")
            self.socket = websocket.create_connection(
                page["webSocketDebuggerUrl"], timeout=SECONDS, suppress_origin=True
            )
            for domain in ("Page", "Runtime", "Log", "Network"):
                self.call(f"{domain}.enable")
            self.call("Emulation.setFocusEmulationEnabled", enabled=True)
        except BaseException:
            self.process.kill()
            raise

    def call(self, method, **parameters):
        """The result of a method of the protocol; events that come before it are noted."""
        number = next(self.numbers)
        self.socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while (message := json.loads(self.socket.recv())).get("id") != number:
            event, values = message.get("method"), message.get("params", {})
            if event == "Runtime.exceptionThrown" or (
                event == "Log.entryAdded" and values["entry"]["level"] == "error"
            ):
                self.errors.append(values)
            if event == "Network.requestWillBeSent":
                self.requests.append(values["request"]["url"])
        assert "error" not in message, message
        return message["result"]

    def value(self, expression):
        """The value of a JavaScript expression."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def open(self, path, width, height):
        phone = {"mobile": width < 500, "deviceScaleFactor": 1}
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, **phone)
        self.call("Page.navigate", url=path.as_uri())
        wait(lambda: self.value("document.readyState") == "complete" and self.value("chosen"))

    def box(self, selector):
        """(left, top, width, height) of the first element, pixels of the window."""
        script = f"document.querySelector({json.dumps(selector)}).getBoundingClientRect()"
        return self.value(f"(b => [b.x, b.y, b.width, b.height])({script})")

    def click(self, selector):
        """Moves the mouse to the middle of an element, after scrolling there, and clicks."""
        element = f"document.querySelector({json.dumps(selector)})"
        self.value(f"{element}.scrollIntoView({{block: 'center', behavior: 'instant'}})")
        left, top, width, height = self.box(selector)
        where = {"x": left + width / 2, "y": top + height / 2, "button": "left", "clickCount": 1}
        for event in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=event, **where)

    def press(self, key):
        code = {"key": key, "code": key, "windowsVirtualKeyCode": KEYS[key]}
        text = {"text": "\r"} if key == "Enter" else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", **code, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", **code)

    def screenshot(self, selector=None):
        """The window, or an element that it shows, as an RGB image."""
        area = {}
        if selector:
            left, top, width, height = self.box(selector)
            top += self.value("scrollY")
            area = {"x": left, "y": top, "width": width, "height": height, "scale": 1}
        clip = {"clip": area} if area else {}
        data = self.call("Page.captureScreenshot", **clip)["data"]
        return Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")

    def view(self):
        """The part of the map that is shown: left, top, width, height in metres."""
        box = "document.querySelector('#map > svg').viewBox.baseVal"
        return self.value(f"(b => [b.x, b.y, b.width, b.height])({box})")

    def close(self):
        self.socket.close()
        self.process.terminate()
        try:
            self.process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def wait(condition):
    """Returns when a condition holds; fails after SECONDS."""
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.fixture(scope="module")
def page(tmp_path_factory, make_street):
    """The map of three answers among 12 photos, 40 m apart eastward."""
    top = tmp_path_factory.mktemp("map")
    photos = read_photos(make_street(top / "photos", range(12)))
    queries = make_street(top / "queries", (1, 5, 9))
    index = SimpleNamespace(photos=photos, xy=photos.xy)
    rows = np.array([[1, 0, 2, 3, 4], [5, 4, 6, 11, 0], [9, 8, 10, 7, 1]])
    alike = np.tile([0.9, 0.7, 0.6, 0.5, 0.4], (3, 1))
    answers = SimpleNamespace(predictions=rows, similarity=alike, xy=photos.xy[rows[:, 0]])
    table = pd.DataFrame({"file": sorted(map(str, queries.iterdir())), "lat": 37.77})
    table = table.assign(lon=-122.42, confidence=[0.998, 0.31, np.nan], best_match="x.jpg")
    write_map(top / "map.html", index, table, answers, "Fitted to a test.")
    return top / "map.html"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


SHOWN = "[...document.querySelectorAll('article')].filter(a => a.offsetHeight).map(a => a.id)"


def test_the_map_opens_without_errors_or_requests(browser, page):
    browser.open(page, 1200, 900)
    assert browser.value("document.querySelector('h1').innerText").startswith("3 located photos")
    assert browser.value(SHOWN) == ["q1"]
    assert browser.value("document.getElementById('bar').textContent").strip().endswith(" m")
    assert browser.value("document.documentElement.scrollWidth <= innerWidth")
    assert browser.errors == []
    assert {address.split(":")[0] for address in browser.requests} <= {"file", "data", "about"}
    # The check of errors sees one.
    browser.value("setTimeout(() => { throw new Error('seen'); }, 0)")
    wait(lambda: browser.value("1") and browser.errors)
    browser.errors.clear()


def test_a_click_on_an_answer_shows_its_five_matches(browser, page):
    browser.open(page, 1200, 900)
    for answer in ("q2", "q3", "q1"):
        browser.click(f"#answers a[href='#{answer}'] .face")
        assert browser.value(SHOWN) == [answer] and browser.value("location.hash") == f"#{answer}"
        lines = browser.value("document.querySelector('#links path').getAttribute('d')")
        assert lines.count("L") == 5
        shown = f"#{answer} figure"
        assert browser.value(f"document.querySelectorAll({shown!r}).length") == 1 + 5
        for number in range(1, 7):  # a photo is drawn in each: pixels of many colours
            pixels = np.asarray(browser.screenshot(f"#{answer} figure:nth-child({number}) svg"))
            assert pixels.reshape(-1, 3).std(0).min() > 20
    browser.click("table a[href='#q3']")
    assert browser.value(SHOWN) == ["q3"] and browser.errors == []


def test_the_map_zooms_and_moves(browser, page):
    browser.open(page, 1200, 900)
    whole, scale = browser.view(), "document.getElementById('bar').textContent"
    browser.click("#answers a[href='#q2'] .face")
    before = browser.value(scale)
    browser.click("[data-zoom='2']")
    near = browser.view()
    np.testing.assert_allclose(near[2:], np.divide(whole[2:], 2), rtol=1e-5)
    x, y = browser.value("[chosen[0], chosen[1]]")
    middle = [near[0] + near[2] / 2, near[1] + near[3] / 2]
    np.testing.assert_allclose(middle, [x, y], atol=0.01)
    assert browser.value(scale) != before
    # The mouse wheel with Ctrl keeps the place under the mouse.
    left, top, width, height = browser.box("#map > svg")
    wheel = {"x": left + width / 4, "y": top + height / 2, "deltaX": 0, "deltaY": -100}
    browser.call("Input.dispatchMouseEvent", type="mouseWheel", modifiers=2, **wheel)
    wait(lambda: browser.view()[2] < near[2])
    nearer = browser.view()
    np.testing.assert_allclose(nearer[0] + nearer[2] / 4, near[0] + near[2] / 4, rtol=1e-3)
    # Dragging moves the map with the mouse.
    mouse = {"button": "left", "clickCount": 1, "y": top + 20}
    for event, x in (("mousePressed", 20), ("mouseMoved", 80), ("mouseReleased", 80)):
        browser.call("Input.dispatchMouseEvent", type=event, x=left + x, **mouse)
    metres = 60 * nearer[2] / width
    np.testing.assert_allclose(nearer[0] - browser.view()[0], metres, rtol=0.05)
    for _ in range(12):  # there is a nearest view
        browser.click("[data-zoom='2']")
    assert browser.view()[2] == pytest.approx(20, rel=1e-5)
    browser.click("[data-zoom='0']")
    np.testing.assert_allclose(browser.view(), whole, rtol=1e-5)
    assert browser.errors == []


def test_the_map_works_by_keyboard(browser, page):
    browser.open(page, 1200, 900)
    focused = "document.activeElement.getAttribute('href') || document.activeElement.dataset.zoom"
    reached = []
    for _ in range(7):
        browser.press("Tab")
        reached.append(browser.value(focused))
        if reached[-1].startswith("#q"):  # an answer is picked when it has the focus
            assert browser.value(SHOWN) == [reached[-1][1:]]
    assert reached[0] == "#list" and set(reached[1:4]) == {"#q1", "#q2", "#q3"}
    assert reached[4:] == ["2", "0.5", "0"]
    whole = browser.view()
    browser.value("document.querySelector('[data-zoom=\"2\"]').focus()")
    browser.press("Enter")
    assert browser.view()[2] == pytest.approx(whole[2] / 2, rel=1e-5)
    browser.value("document.querySelector('table a[href=\"#q2\"]').focus()")
    browser.press("Enter")
    assert browser.value(SHOWN) == ["q2"] and browser.errors == []


def test_the_map_fits_a_phone(browser, page):
    browser.open(page, *PHONE)
    assert browser.value("innerWidth") == PHONE[0]
    assert browser.value("document.documentElement.scrollWidth") <= PHONE[0]
    places = browser.box("#places")
    assert places[1] >= sum(browser.box("#map")[1::2])  # below the map, not beside it
    for button in ("2", "0.5", "0"):
        assert min(browser.box(f"[data-zoom='{button}']")[2:]) >= 36
    browser.click("#answers a[href='#q2'] .face")
    assert browser.value(SHOWN) == ["q2"]
    size = browser.box("#q2 figure:nth-child(6)")
    assert size[0] + size[2] <= PHONE[0] and size[2] > 60
    assert browser.errors == []
