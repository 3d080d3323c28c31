"""Markdown as HTML that is safe to show: escaped by markdown-it, and then cleaned by nh3.

Nothing of it is loaded from anywhere: an image becomes a link to it. Links lead to http, https and mailto.
"""

import re
from collections.abc import Sequence

import nh3
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.rules_block import StateBlock, table
from markdown_it.rules_core import StateCore
from markdown_it.rules_inline import StateInline
from markdown_it.token import Token
from markdown_it.utils import EnvType, OptionsDict
from markupsafe import Markup, escape
from pygments.token import STANDARD_TYPES

from rpcshare.render.highlighting import highlighted
from rpcshare.render.safe_text import clean, plain

__all__ = ["MAX_MARKDOWN", "markdown"]

MAX_MARKDOWN = 200_000
"""Characters. It takes about 1.5 ms a kilobyte; what is longer is shown as it was written."""

_MAX_LINKIFIED = 50_000
_MAX_URLS = 200  # linkify takes quadratic time in their number
_MAX_NESTING = 20  # of quotes and lists
_MAX_CELLS = 10_000  # of tables; a short row is filled up, so that a byte may make hundreds

# What is kept in the environment of one rendering.
_HAS_COLOURS, _CELLS = "has_colours", "cells"

_TOP_HEADING = 3  # a page has its title at 1, and messages at 2
_LAST_HEADING = 6

_LINK = re.compile(r"(?:https?://|mailto:)", re.IGNORECASE)

_cleaner = nh3.Cleaner(
    tags={
        *("p", "br", "hr", "em", "strong", "s", "del", "blockquote", "ul", "ol", "li", "a"),
        *("code", "pre", "span", "div", "h3", "h4", "h5", "h6", "table", "thead", "tbody", "tr", "th", "td"),
    },
    attributes={"a": {"href", "title"}, "ol": {"start"}, "th": {"scope"}},
    allowed_classes={
        "span": {name for name in STANDARD_TYPES.values() if name} | {"language", "math"},
        "div": {"code", "table"},
        "a": {"image-link"},
        "th": {"right", "center"},
        "td": {"right", "center"},
    },
    set_tag_attribute_values={"pre": {"tabindex": "0"}},
    link_rel="noopener noreferrer nofollow",
    url_schemes={"http", "https", "mailto"},
    url_relative="deny",
)


def markdown(text: str, *, has_colours: bool = True) -> Markup:
    """Return markdown as HTML, in which headings go on below those of the page.

    Some text takes markdown-it time that grows with its square, and Pygments longer than anybody waits:
    the caller has to be able to stop this.

    Args:
        text: what was written.
        has_colours: whether code in it is highlighted.
    """
    text = clean(text)
    if len(text) > MAX_MARKDOWN:
        return _as_written(text, f"it is longer than {MAX_MARKDOWN:,} characters")
    has_links = len(text) <= _MAX_LINKIFIED and text.count("://") <= _MAX_URLS
    parser = _linkifying if has_links else _plain
    try:
        html = parser.render(text, {_HAS_COLOURS: has_colours, _CELLS: 0})
    except _TooManyCellsError:
        return _as_written(text, f"its tables have more than {_MAX_CELLS:,} cells")
    except (RecursionError, _NestedTooDeeplyError):
        return _as_written(text, "it is nested too deeply")
    except ValueError:  # a URL that is none
        return _as_written(text, "an address in it cannot be read")
    return Markup(_cleaner.clean(html))  # noqa: S704 -- this is what cleaning is for


def _as_written(text: str, why: str) -> Markup:
    return Markup(
        '<p class="remark">Shown as it was written: {}.</p><pre class="as-written" tabindex="0">{}</pre>'
    ).format(why, text)


class _Renderer(RendererHTML):
    """What markdown-it prints, but for code, images, tables and headings."""

    def fence(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:
        """Print a block of code, under the name of its language."""
        language = (tokens[idx].info.split() or [""])[0]
        return _code(tokens[idx].content, language, has_colours=env[_HAS_COLOURS])

    def code_block(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:
        """Print an indented block of code."""
        return _code(tokens[idx].content, "", has_colours=False)

    def image(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:
        """Print a link to an image."""
        token = tokens[idx]
        source = str(token.attrs.get("src", ""))
        label = token.content.strip() or "image"
        if not _LINK.match(source):
            return str(escape(f"[{label}]"))
        return str(Markup('<a class="image-link" href="{}">{}</a>').format(source, label))

    def math(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:
        """Print a formula as it was written."""
        return str(Markup('<span class="math">{}</span>').format(tokens[idx].content))

    def table_open(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:
        """Begin a table, which may be wider than the page."""
        return '<div class="table"><table>'

    def table_close(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:
        """End a table."""
        return "</table></div>"


def _code(code: str, language: str, *, has_colours: bool) -> str:
    label = Markup('<span class="language">{}</span>').format(language[:40]) if language else Markup()
    body = plain(code).rstrip("\n")
    if has_colours:
        body = highlighted(body, language)
    return str(Markup('<div class="code">{}<pre><code>{}</code></pre></div>\n').format(label, body))


def _is_allowed(url: str) -> bool:
    return _LINK.match(url.strip()) is not None


def _parser(*, linkify: bool) -> MarkdownIt:
    parser = MarkdownIt(
        "commonmark",
        # People, and models, mean the line breaks that they write.
        {"html": False, "breaks": True, "linkify": linkify, "typographer": False, "maxNesting": _MAX_NESTING},
        renderer_cls=_Renderer,
    )
    parser.enable(["table", "strikethrough"])
    parser.inline.ruler.before("escape", "math", _math)
    parser.inline.ruler.before("escape", "line_break", _line_break)
    parser.core.ruler.after("inline", "tasks_and_alerts", _mark_tasks_and_alerts)
    parser.block.ruler.at("table", _bounded_table, {"alt": ["paragraph", "reference"]})
    if linkify and parser.linkify is not None:
        parser.enable("linkify")
        parser.linkify.set({"fuzzy_link": False, "fuzzy_email": False})
    parser.validateLink = _is_allowed  # type: ignore[method-assign]  # the documented way to set the rule
    parser.core.ruler.after("block", "deep_nesting", _refuse_deep_nesting)
    parser.core.ruler.push("page_headings", _set_headings)
    parser.core.ruler.push("cell_classes", _set_cells)
    return parser


_BREAK = re.compile(r"<br ?/?>", re.IGNORECASE)
_MATH_ENDS = {"$$": "$$", "\\(": "\\)", "\\[": "\\]"}
_MAX_MATH = 2_000  # characters of one formula


def _math(state: StateInline, silent: bool) -> bool:
    """Take a formula of LaTeX as it was written: Markdown would take its backslashes for escapes."""
    source, start = state.src, state.pos
    end = -1
    closing = _MATH_ENDS.get(source[start : start + 2])
    if closing is not None:
        end = source.find(closing, start + 2, start + _MAX_MATH) + 2
        if end <= start + 4:
            return False
    elif source[start] == "$":
        close = source.find("$", start + 1, start + _MAX_MATH)
        inner = source[start + 1 : close]
        is_price = source[close + 1 : close + 2].isdigit()
        if close < 0 or not inner or inner != inner.strip() or "\n\n" in inner or is_price:
            return False
        end = close + 1
    if end < 0:
        return False
    if not silent:
        state.push("math", "span", 0).content = source[start:end]
    state.pos = end
    return True


def _line_break(state: StateInline, silent: bool) -> bool:
    """Take ``<br>``, the only way to break a line within a table, for what it says."""
    match = _BREAK.match(state.src, state.pos)
    if match is None:
        return False
    if not silent:
        state.push("hardbreak", "br", 0)
    state.pos = match.end()
    return True


_TASK = re.compile(r"\[([ xX])\](?=[ \t])")
_ALERT = re.compile(r"\[!(NOTE|TIP|IMPORTANT|WARNING|CAUTION)\][ \t]*$")


def _mark_tasks_and_alerts(state: StateCore) -> None:
    """Show ``- [x]`` as a box, and name the alert that ``> [!NOTE]`` begins."""
    for index, token in enumerate(state.tokens):
        if token.type != "inline" or not token.children or index < 2:
            continue
        around, first = state.tokens[index - 2].type, token.children[0]
        if around == "list_item_open" and (task := _TASK.match(first.content)):
            box = "\u2610" if task[1] == " " else "\u2611"
            first.content = box + first.content[task.end() :]
        elif around == "blockquote_open" and (alert := _ALERT.match(first.content)):
            name = Token("text", "", 0, content=alert[1].title())
            token.children[:1] = [
                Token("strong_open", "strong", 1),
                name,
                Token("strong_close", "strong", -1),
            ]


class _TooManyCellsError(Exception):
    pass


class _NestedTooDeeplyError(Exception):
    pass


def _refuse_deep_nesting(state: StateCore) -> None:
    """Have it said where markdown-it would leave out what is nested more deeply than it goes."""
    if any(token.nesting == 1 and token.level + 1 >= _MAX_NESTING for token in state.tokens):
        raise _NestedTooDeeplyError


def _bounded_table(state: StateBlock, start: int, end: int, silent: bool) -> bool:
    """Begin no table that would be too large with those before it."""
    if not table(state, start, end, True):  # which looks at its first two lines
        return False
    if silent:
        return True
    columns = state.getLines(start, start + 1, 0, False).count("|") + 1
    rows = 2
    while start + rows < end and not state.isEmpty(start + rows):
        rows += 1
    state.env[_CELLS] += columns * rows
    if state.env[_CELLS] > _MAX_CELLS:
        raise _TooManyCellsError
    return table(state, start, end, silent)


def _set_headings(state: StateCore) -> None:
    """Let headings begin at level 3, and go down one level at a time."""
    above: list[int] = []  # the levels that the text gave to the headings around the present one
    for token in state.tokens:
        if token.type == "heading_open":
            level = int(token.tag[1])
            while above and above[-1] >= level:
                above.pop()
            above.append(level)
        if token.type in ("heading_open", "heading_close"):
            token.tag = f"h{min(_TOP_HEADING - 1 + len(above), _LAST_HEADING)}"


def _set_cells(state: StateCore) -> None:
    """Turn alignment from a style, which the page's policy forbids, into a class."""
    for token in state.tokens:
        if token.type in ("th_open", "td_open"):
            style = str(token.attrs.pop("style", ""))
            for side in ("right", "center"):
                if side in style:
                    token.attrs["class"] = side
            if token.type == "th_open":
                token.attrs["scope"] = "col"


_plain = _parser(linkify=False)
_linkifying = _parser(linkify=True)
