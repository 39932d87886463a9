"""What the recipes name and this project does not have: nginx, a server of S3, its client, that of AWS Lambda.

Their packages are in directories of their own, for processes that are to have them.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from helpers.processes import wait_for
from rig.environment import PATIENCE, environment
from rig.packages import packages

LAMBDA = ("awslambdaric>=3",)
_STORES = ("flask>=3", "flask-cors>=4", "moto[s3]>=5", "s3fs>=2024.2")
BUCKET, KEY = "bucket", "environments/app.tar.zst"

# Two users, of whom one may read, and an object.
_SET_UP = """
import boto3, json, sys
endpoint, bucket, key, archive = sys.argv[1:]
def client(service, user="nobody", secret="nothing"):
    names = {"aws_access_key_id": user, "aws_secret_access_key": secret, "region_name": "us-east-1"}
    return boto3.client(service, endpoint_url=endpoint, **names)
def user(name):
    users.create_user(UserName=name)
    made = users.create_access_key(UserName=name)["AccessKey"]
    return made["AccessKeyId"], made["SecretAccessKey"]
users, store = client("iam"), client("s3")
reader, other = user("reader"), user("other")
may = {"Effect": "Allow", "Action": "s3:GetObject", "Resource": f"arn:aws:s3:::{bucket}/*"}
policy = json.dumps({"Version": "2012-10-17", "Statement": [may]})
users.put_user_policy(UserName="reader", PolicyName="reads", PolicyDocument=policy)
store.create_bucket(Bucket=bucket)
with open(archive, "rb") as file:
    store.put_object(Bucket=bucket, Key=key, Body=file)
print(json.dumps([reader, other]))
"""


def with_packages(**variables: object) -> dict[str, str]:
    """Return an environment in which those for S3 can be imported, and nothing of the user's is configured."""
    env = environment(
        HOME="/nonexistent", AWS_EC2_METADATA_DISABLED="true", AWS_DEFAULT_REGION="us-east-1", NO_PROXY="*", **variables
    )
    return {**env, "PYTHONPATH": os.pathsep.join([env["PYTHONPATH"], str(packages(_STORES))])}


# --- S3 -------------------------------------------------------------------------------------------


class Store:
    """A server of S3 at `url`, with an archive at `BUCKET`/`KEY`.

    `reader` may read it and `other` may not: access key and secret of each.
    """

    def __init__(self, url: str, archive: Path) -> None:
        self.url = url
        done = subprocess.run(
            [sys.executable, "-c", _SET_UP, url, BUCKET, KEY, archive],
            env=with_packages(), text=True, capture_output=True, timeout=PATIENCE,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        self.reader, self.other = json.loads(done.stdout)

    def check_users(self, check: bool) -> None:
        """Have the server check users from now on, or take any. It takes no presigned URL while it checks them."""
        unchecked = b"0" if check else b"1e9"
        headers = {"Content-Type": "application/octet-stream"}
        request = urllib.request.Request(f"{self.url}/moto-api/reset-auth", unchecked, headers)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        opener.open(request, timeout=PATIENCE).close()


@contextmanager
def store(archive: Path, folder: Path) -> Iterator[Store]:
    """Run a server of S3 with an archive until the context ends; `folder` is for what it says."""
    log = folder / "store.log"
    with log.open("wb") as output:
        command = [sys.executable, "-m", "moto.server", "--host", "127.0.0.1", "--port", "0"]
        process = subprocess.Popen(command, env=with_packages(), stdout=output, stderr=output)
    try:
        wait_for(lambda: "Running on" in log.read_text() or process.poll() is not None, "the server of S3")
        found = re.search(r"http://127\.0\.0\.1:\d+", log.read_text())
        assert found, log.read_text()
        yield Store(found[0], archive)
    finally:
        process.terminate()
        process.wait(PATIENCE)


# --- nginx ---------------------------------------------------------------------------------------

_NGINX = """
{user}
worker_processes 1;
pid {folder}/pid;
error_log {folder}/error.log;
events {{}}
http {{
    log_format asked "$status $http_range";
    access_log {folder}/access.log asked;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    {site}
}}
"""


@contextmanager
def nginx(site: str, folder: Path) -> Iterator[Path]:
    """Run nginx with a section `server` until the context ends; yield a file of what it was asked: status and range."""
    program = shutil.which("nginx", path=f"{os.defpath}:/usr/sbin:/sbin") or pytest.skip("nginx is not installed")
    user = "user root;" if os.geteuid() == 0 else ""  # others may not look into the directories of tests
    (folder / "nginx.conf").write_text(_NGINX.format(user=user, folder=folder, site=site))
    command = [program, "-p", folder, "-c", folder / "nginx.conf", "-g", "daemon off;"]
    with (folder / "said").open("wb") as said:
        process = subprocess.Popen(command, stdout=said, stderr=said)
    try:
        wait_for(lambda: (folder / "pid").exists() or process.poll() is not None, "nginx")
        assert process.poll() is None, (folder / "said").read_text() + (folder / "error.log").read_text()
        yield folder / "access.log"
    finally:
        process.terminate()
        process.wait(PATIENCE)
