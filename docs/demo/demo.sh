#!/bin/sh
# Pack a small real set of packages, then start an app from the archive, cold and warm.
# Usage: demo.sh PYTHON, from the top of the checkout; PYTHON has unpackenv installed.
set -eu

python=$1
work=build/demo
packages=$work/site-packages
archive=$work/site-packages.tar.zst

say() { printf '\n== %s\n' "$*"; }
kilobytes() { du -sk "$1" | cut -f1; }

unset UNPACKENV  # "off" would hide what is to be shown
UNPACKENV_ARCHIVE=$PWD/$archive
UNPACKENV_TARGET=$PWD/$work/unpacked
export UNPACKENV_ARCHIVE UNPACKENV_TARGET

rm -rf "$work"
mkdir -p "$work"

say '1. Install a small real set of packages'
"$python" -m pip --disable-pip-version-check --quiet install --target "$packages" --only-binary :all: -r docs/demo/requirements.txt
echo "$packages: $(find "$packages" -type f | wc -l) files, $(kilobytes "$packages") KB on disk"

say '2. Pack it'
"$python" -m unpackenv pack "$packages" -o "$archive"
echo "$archive: 1 file, $(kilobytes "$archive") KB on disk"

say '3. Start the app from the archive: the packages are unpacked first'
"$python" docs/demo/app.py

say '4. Start it again: the packages are there'
"$python" docs/demo/app.py
