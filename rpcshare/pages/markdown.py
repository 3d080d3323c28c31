"""Markdown as HTML that is safe to show: escaped by markdown-it, and then cleaned by nh3.

Nothing of it is loaded from anywhere: an image becomes a link to it. Links lead to http, https and mailto.
"""

import re
from collections.abc import Sequence

import nh3
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.rules_core import StateCore
from markdown_it.token import Token
from markdown_it.utils import EnvType, OptionsDict
from markupsafe import Markup, escape
from pygments.token import STANDARD_TYPES

from rpcshare.pages.fields import clean, plain
from rpcshare.pages.highlighting import highlighted

__all__ = ["MAX_MARKDOWN", "markdown"]

MAX_MARKDOWN = 200_000
"""Characters. It takes about 1.5 ms a kilobyte; what is longer is shown as it was written."""

_MAX_LINKIFIED = 50_000
_MAX_URLS = 200  # linkify takes quadratic time in their number

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
        "span": {name for name in STANDARD_TYPES.values() if name} | {"language"},
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


def markdown(text: str) -> Markup:
    """Return markdown as HTML, in which headings go on below those of the page."""
    text = clean(text)
    if len(text) > MAX_MARKDOWN:
        return Markup('<pre class="as-written" tabindex="0">{}</pre>').format(text)
    has_links = len(text) <= _MAX_LINKIFIED and text.count("://") <= _MAX_URLS
    parser = _linkifying if has_links else _plain
    try:
        html = parser.render(text)
    except (RecursionError, ValueError):  # nested without end, or a URL that is none
        return Markup('<pre class="as-written" tabindex="0">{}</pre>').format(text)
    return Markup(_cleaner.clean(html))  # noqa: S704 -- this is what cleaning is for


class _Renderer(RendererHTML):
    """What markdown-it prints, but for code, images, tables and headings."""

    def fence(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:
        """Print a block of code, under the name of its language."""
        language = (tokens[idx].info.split() or [""])[0]
        return _code(tokens[idx].content, language)

    def code_block(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:
        """Print an indented block of code."""
        return _code(tokens[idx].content, "")

    def image(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:
        """Print a link to an image."""
        token = tokens[idx]
        source = str(token.attrs.get("src", ""))
        label = token.content.strip() or "image"
        if not _LINK.match(source):
            return str(escape(f"[{label}]"))
        return str(Markup('<a class="image-link" href="{}">{}</a>').format(source, label))

    def table_open(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:
        """Begin a table, which may be wider than the page."""
        return '<div class="table"><table>'

    def table_close(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:
        """End a table."""
        return "</table></div>"


def _code(code: str, language: str) -> str:
    label = Markup('<span class="language">{}</span>').format(language[:40]) if language else Markup()
    body = highlighted(plain(code).rstrip("\n"), language)
    return str(Markup('<div class="code">{}<pre><code>{}</code></pre></div>\n').format(label, body))


def _is_allowed(url: str) -> bool:
    return _LINK.match(url.strip()) is not None


def _parser(*, linkify: bool) -> MarkdownIt:
    parser = MarkdownIt(
        "commonmark",
        {"html": False, "linkify": linkify, "typographer": False, "maxNesting": 20},
        renderer_cls=_Renderer,
    )
    parser.enable(["table", "strikethrough"])
    if linkify and parser.linkify is not None:
        parser.enable("linkify")
        parser.linkify.set({"fuzzy_link": False, "fuzzy_email": False})
    parser.validateLink = _is_allowed  # type: ignore[method-assign]  # the documented way to set the rule
    parser.core.ruler.push("page_headings", _set_headings)
    parser.core.ruler.push("cell_classes", _set_cells)
    return parser


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
