"""Found on the PYTHONPATH of an application's children where another `sitecustomize` hides the one next to this."""

if __name__ == "usercustomize":
    import unpackenv_site  # type: ignore[import-not-found,unused-ignore]

    unpackenv_site.run(__name__)
