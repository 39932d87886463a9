"""The renderer: pandas numbers -> plotly figure -> kaleido JPEG, and flask to serve it.

    python app.py PICTURE.jpg            draw one picture, print its size, exit
    python app.py --serve [PORT]         draw at every GET /

With RENDERER_BOOTSTRAP=1 its packages come from an archive, with =tar from one that `tar` unpacks to /, as people do it
by hand. Without it they must be importable.
"""

import os

if os.environ.get("RENDERER_BOOTSTRAP") == "1":
    import unpackenv

    unpackenv.bootstrap()
elif os.environ.get("RENDERER_BOOTSTRAP") == "tar" and not os.path.isdir("/site-packages/pandas"):
    import importlib
    import subprocess

    subprocess.run(["tar", "Jxf", "/packages.tar.xz", "-C", "/"], check=True, env={**os.environ, "XZ_OPT": "-T 0"})
    importlib.invalidate_caches()  # Python has seen that the directory is not there

import sys
import time

import flask
import numpy as np
import pandas as pd
import plotly.graph_objects as go
import plotly.io as pio

STARTED = time.perf_counter()


def figure() -> go.Figure:
    """Return a year of daily readings with their weekly and monthly means."""
    day = np.arange(365)
    # Seeded, so that every run draws the same picture.
    weather = np.random.default_rng(2021).normal(scale=3, size=day.size)
    readings = pd.DataFrame(
        {"degrees": 11 - 10 * np.cos(2 * np.pi * day / day.size) + weather},
        index=pd.date_range("2021-01-01", periods=day.size),
    )

    drawn = go.Figure(layout={"title": "Outside temperature, 2021", "width": 900, "height": 500})
    drawn.add_scatter(x=readings.index, y=readings.degrees, mode="markers", name="daily", marker={"size": 4})
    for name, rule in (("weekly mean", "W"), ("monthly mean", "M")):
        means = readings.resample(rule).mean()
        drawn.add_scatter(x=means.index, y=means.degrees, mode="lines", name=name)
    drawn.update_yaxes(title="degrees Celsius")
    return drawn


def draw() -> bytes:
    """Return the figure as JPEG bytes."""
    return pio.to_image(figure(), format="jpeg")


def create_app() -> flask.Flask:
    """Return the web application: `/` answers with the picture."""
    app = flask.Flask(__name__)

    @app.route("/")
    def picture() -> flask.Response:
        return flask.Response(draw(), mimetype="image/jpeg")

    return app


def main() -> None:
    if sys.argv[1:2] == ["--serve"]:
        port = int(sys.argv[2]) if len(sys.argv) > 2 else 8000
        create_app().run(host="127.0.0.1", port=port)
        return
    jpeg = draw()
    with open(sys.argv[1], "wb") as file:
        file.write(jpeg)
    print(f"{sys.argv[1]}: {len(jpeg)} bytes, drawn {time.perf_counter() - STARTED:.2f} s after the imports")


if __name__ == "__main__":
    main()
