"""Found first on the PYTHONPATH of an application's children."""

if __name__ == "sitecustomize":
    import unpackenv_site  # type: ignore[import-not-found,unused-ignore]

    unpackenv_site.run(__name__)
