"""The templates, compiled."""

from jinja2 import Environment, PackageLoader, StrictUndefined

__all__ = ["page_templates"]


def page_templates(**values: object) -> Environment:
    """Return the environment of the templates, with ``values`` known to all of them."""
    environment = Environment(
        loader=PackageLoader("rpcshare.render"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(values)
    return environment
