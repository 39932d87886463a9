"""A web application whose packages are in an archive: it draws a picture and serves it once, to itself."""

import unpackenv

unpackenv.bootstrap()

import io

import flask
import lxml.etree
import yaml
from PIL import Image, ImageDraw

app = flask.Flask(__name__)
SHAPES = yaml.safe_load("{size: [320, 200], circles: [[80, 100, 60], [160, 100, 40], [230, 100, 20]]}")


@app.route("/")
def picture() -> flask.Response:
    image = Image.new("RGB", SHAPES["size"], "white")
    draw = ImageDraw.Draw(image)
    for x, y, radius in SHAPES["circles"]:
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill="steelblue")
    file = io.BytesIO()
    image.save(file, "png")
    return flask.Response(file.getvalue(), mimetype="image/png")


if __name__ == "__main__":
    answer = app.test_client().get("/")
    libxml = ".".join(map(str, lxml.etree.LIBXML_VERSION))
    print(f"app: answered {answer.status_code} with a PNG of {len(answer.data)} bytes (libxml {libxml})")
    print(f"app: flask comes from {flask.__file__}")
