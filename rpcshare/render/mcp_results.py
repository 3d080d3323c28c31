"""What tools answer of which nothing else is known: JSON, as MCP servers write it, or text."""

from collections.abc import Iterator

from rpcshare import jsontext
from rpcshare.render import blocks, code_and_prose
from rpcshare.render.blocks import Block, Bounds, Note, Table
from rpcshare.render.lenient_json import Fields
from rpcshare.render.safe_text import clean, plain

__all__ = ["result_blocks", "said_error"]

_MAX_JSON = 200_000  # characters
_MAX_ITEMS = 50  # of one result
_MAX_DEPTH = 5
_TIMES_ENCODED = 3  # JSON within a string of JSON


def result_blocks(output: str, bounds: Bounds) -> list[Block]:
    """Return what a call came to: JSON laid out, its texts as prose, its images as images."""
    value = _decoded(output)
    if value is None or value in ([], {}):
        return code_and_prose.code(output, bounds, is_output=True, label="output")
    return _value_blocks(value, bounds)


def said_error(output: str) -> bool:
    """Return whether an MCP server says that a call failed, in a result that came as if it had not."""
    return '"isError"' in output and Fields(_decoded(output)).flag("isError")


def _decoded(output: str) -> object:
    value: object = output
    for _ in range(_TIMES_ENCODED):
        if not isinstance(value, str):
            break
        written = value.strip()
        if written[:1] not in ("{", "[", '"') or len(written) > _MAX_JSON:
            break
        try:
            value = jsontext.decode(written)
        except jsontext.JSONDecodeError:
            break
    return None if value is output else value


def _value_blocks(value: object, bounds: Bounds) -> list[Block]:
    if items := _content(value):
        return [block for item in items for block in _item_blocks(item, bounds)]
    if isinstance(value, str):
        return code_and_prose.prose(clean(value), bounds)
    if isinstance(value, dict):
        return _object_blocks(value, bounds)
    if _has_lines(value) and (rows := list(_flat("", value, bounds, 0))) and len(rows) <= bounds.lines:
        return [Table(rows)]
    return code_and_prose.json_code(value, bounds, "json")


def _content(value: object) -> list[Fields]:
    """Return the items of an MCP result (``{"content": [{"type": "text", "text": …}]}``); none for others."""
    content = value.get("content") if isinstance(value, dict) else value
    if not isinstance(content, list):
        return []
    items = [Fields(each) for each in content[:_MAX_ITEMS]]
    is_result = bool(items) and all(each.raw("type") in _ITEMS for each in items)
    return items if is_result else []


_ITEMS = frozenset({"text", "image", "audio", "resource", "resource_link"})


def _item_blocks(item: Fields, bounds: Bounds) -> list[Block]:
    kind = item.raw("type")
    if kind == "image":
        url = f"data:{item.raw('mimeType')};base64,{item.raw('data')}"
        return blocks.picture(url, "image", bounds) or [Note("An image.")]
    if kind == "text":
        text = item.raw("text")
        value = _decoded(text)
        is_json = isinstance(value, dict | list) and bool(value)
        return _value_blocks(value, bounds) if is_json else code_and_prose.prose(clean(text), bounds)
    resource = item.fields("resource") if kind == "resource" else item
    name = resource.line("uri", "name") or kind
    return [
        Note(f"{kind.replace('_', ' ').title()}: {name}"),
        *code_and_prose.code(resource.raw("text"), bounds, is_output=True),
    ]


def _object_blocks(value: dict[str, object], bounds: Bounds) -> list[Block]:
    """Return an object: what is short or of several lines under its name, the rest as JSON."""
    rows: list[tuple[str, str]] = []
    rest: dict[str, object] = {}
    for name, each in value.items():
        found = list(_flat(name, each, bounds, 0)) if _is_row(each) or _has_lines(each) else []
        if found and len(rows) + len(found) <= bounds.lines:
            rows += found
        else:
            rest[name] = each
    shown: list[Block] = [Table(rows)] if rows else []
    return shown + (code_and_prose.json_code(rest, bounds, "json") if rest else [])


def _is_row(value: object) -> bool:
    is_list = isinstance(value, list) and all(isinstance(item, str) for item in value)
    return is_list or not isinstance(value, dict | list)


def _has_lines(value: object, depth: int = 0) -> bool:
    """Return whether there is a text of several lines in a value: JSON would show it in one."""
    if isinstance(value, str):
        return "\n" in value
    if depth >= _MAX_DEPTH:
        return False
    if isinstance(value, dict):
        return any(_has_lines(each, depth + 1) for each in value.values())
    return isinstance(value, list) and any(_has_lines(each, depth + 1) for each in value)


def _flat(name: str, value: object, bounds: Bounds, depth: int) -> Iterator[tuple[str, str]]:
    """Yield the texts in a value under the names that lead to them."""
    if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
        yield plain(name[:80]), plain(", ".join(value))[: bounds.characters]
    elif isinstance(value, dict | list) and value and depth < _MAX_DEPTH:
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for each_name, each in items:
            yield from _flat(f"{name}.{each_name}" if name else str(each_name), each, bounds, depth + 1)
    else:
        said = value if isinstance(value, str) else blocks.scalar(value)
        yield plain(name[:80]), plain(said)[: bounds.characters]
