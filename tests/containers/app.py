"""The application in the images: flask, and a page that says where its packages come from."""

import os

import flask
import markupsafe._speedups

app = flask.Flask(__name__)


@app.route("/")
def where():
    return {
        "flask": flask.__file__,
        "native": markupsafe._speedups.__file__,
        "pid": os.getpid(),
        "uid": os.getuid(),
        "first": open("/proc/1/cmdline").read().split("\0")[:-1],
    }


if __name__ == "__main__":
    print(app.test_client().get("/").text, end="")
