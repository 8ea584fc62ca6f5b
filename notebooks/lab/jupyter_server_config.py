"""For ``make lab``: opening a notebook changes no file.

JupyterLab writes the version of Python and the name of the kernel into a notebook as soon as it is
opened. Here a notebook that is saved keeps the metadata that the committed ones have.
"""

SPEC = {"display_name": "Python 3", "language": "python", "name": "python3"}


def keep_metadata(model, **kwargs):
    """Take out of a notebook what depends on the machine that opened it."""
    if model["type"] != "notebook" or not model.get("content"):
        return
    metadata = model["content"]["metadata"]
    if metadata.get("kernelspec", {}).get("name") == SPEC["name"]:
        metadata["kernelspec"] = SPEC
        metadata["language_info"] = {"name": "python"}


c = get_config()  # noqa: F821
c.FileContentsManager.pre_save_hook = keep_metadata
